"""Unchanged: distinguishes an edit from a no-op, a re-encoding, faint noise or a speck.

Assumes that an edit stands out from the pair's own noise (`crispedit.change`): an editor that only redrew the image
changed nothing.
"""

from crispedit.parts import Bound, Filter, Sample, Score


class Unchanged(Filter):
    """How much of the image changed visibly, in total and in the largest region, as fractions of its area; `mean_abs`
    is the mean Lab distance over 100, 0-1. Images of different sizes are compared after a resize."""

    version = 3
    scores = {"changed_fraction": float, "largest_region_fraction": float, "mean_abs": float}
    # An object of 0.3 % of the image (56x56 px of 1024x1024) passes even if half of it has its background's colour; a
    # speck of 0.05 % (23x23 px) does not. Noise, re-encoding and no-ops measure 0 (`crispedit calibrate`).
    bounds = {"largest_region_fraction": Bound(min=0.0012)}
    cost = 2.0

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        area = sample.changed_areas
        return {
            "changed_fraction": float(area.sum() / sample.changed.size),
            "largest_region_fraction": float(area.max(initial=0) / sample.changed.size),
            "mean_abs": float(sample.change.mean() / 100),
        }
