"""Regeneration: was the unedited part of the image left as it was, or redrawn?

Most editors redraw every pixel. That is not a defect, so nothing is rejected for it. Other filters measure relative to
it (`crispedit.change.Noise`), and a recipe that wants pixel-exact pairs sets `regeneration: {bounds: {noise_floor:
{max: 0.5}}}`.

Assumes that at least a quarter of the image was not edited; if not even that was left as it was, the regime is
`global`.
"""

from crispedit.parts import Filter, Sample, Score


class Regeneration(Filter):
    """`noise_floor`: the CIE Lab distance below which the least changed quarter of the aligned pair stays, over means
    of 3x3 px of the small grid (`crispedit.change`); 0 is exact. `regime`: `exact` (below 0.5: intact, or a
    re-encoding), `regenerated`, or `global` (even that quarter visibly changed)."""

    version = 2
    scores = {"noise_floor": float}
    notes = ("regime",)
    cost = 0.5

    def measure_one(self, sample: Sample) -> dict[str, Score | str]:
        return {"noise_floor": sample.noise.floor, "regime": sample.noise.regime}
