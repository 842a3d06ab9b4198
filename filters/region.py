"""Region: the size of the edit: how much of the image changed, in how many pieces, and how spread out.

Assumes that the edit stands out from the pair's own noise (`crispedit.change`). How local an edit should be depends on
its category, whose file has the bounds: an added or removed object takes up to 0.6 of the image; a replaced, recoloured
or moved one may fill nearly all of it (a face in a close-up); a background or style is everywhere."""

import numpy as np

from crispedit.parts import Filter, Sample, Score


class Region(Filter):
    """Regions of visible change. `area_fraction` and `box_fraction` are of the image; the box is the one that holds the
    middle 95 % of the changed pixels along each axis. `largest_share` is the largest region's share of all change.
    `count` leaves out regions under `least_region` of the image. All but the first two are null if nothing changed.
    Bounds are in the category files.
    """

    least_region: float = 0.0005

    version = 3
    scores = {"count": int, "area_fraction": float, "largest_share": float, "box_fraction": float}
    cost = 0.5

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        changed = sample.changed
        area = sample.changed_areas
        total = int(area.sum())
        if not total:
            return {"count": 0, "area_fraction": 0.0, "largest_share": None, "box_fraction": None}
        sides = [_middle(changed.sum(axis=axis)) / changed.shape[1 - axis] for axis in (0, 1)]
        return {
            "count": int((area >= self.least_region * changed.size).sum()),
            "area_fraction": total / changed.size,
            "largest_share": float(area.max() / total),
            "box_fraction": sides[0] * sides[1],
        }


def _middle(profile: np.ndarray) -> int:
    """The number of bins with the middle 95 % of a histogram."""
    cumulative = profile.cumsum() / profile.sum()
    low, high = np.searchsorted(cumulative, [0.025, 0.975])
    return int(high - low + 1)
