"""Alignment: is the edited image aligned with its source? Aspect, scale and shift of the unedited part.

Assumes that most trackable blocks are unedited (`crispedit.motion`), so that they outvote the edit. A motion counts
only if undoing it makes the images match better, so redrawn texture does not count as motion.
"""

from crispedit.parts import Filter, Sample, Score, at_most


class Alignment(Filter):
    """`aspect_error`: relative difference of the aspect ratios, beyond rounding to whole pixels. The rest is measured
    after resizing the edited image to the source's size, and is null if too few blocks agree (a smooth image, a style
    edit that redraws every edge): `displacement_px`, in pixels of the source; `scale_error`, relative, of the worse
    axis; `agreement`, the share of tracked blocks that fit (0-1). `wander_px`: the median distance by which single
    blocks outside the edit depart from that motion, because shapes were redrawn near their places."""

    version = 3
    scores = dict.fromkeys(("aspect_error", "displacement_px", "scale_error", "agreement", "wander_px"), float)
    # aspect_error: sizes rounded to multiples of 16 at 1024 px differ by up to 0.8 %. The others: of 113 pairs of real
    # editors (9 models, judged by a person), those in place measure 0.9 px and 0.003 or less, but for two whose subject
    # fills the image; zoomed by 0.5 %, nearly all measure 0.0045 or more. wander_px: they measure 2.2 or less, shapes
    # that wobble by 3 to 6 px (`crispedit calibrate`) 2.1 or more.
    bounds = at_most(aspect_error=0.01, displacement_px=1.5, scale_error=0.004, wander_px=2.3)
    cost = 5.5

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        height, width = sample.source.shape[:2]
        edited_height, edited_width = sample.edited.shape[:2]
        aspect = edited_width * height / (edited_height * width)
        rounding = 0.5 / min(edited_height, edited_width) if sample.source.shape != sample.edited.shape else 0.0
        scores: dict[str, Score] = dict.fromkeys(self.scores)
        scores["aspect_error"] = max(0.0, abs(aspect - 1) - rounding)
        pixels = height / sample.source_middle.shape[0]
        wander = sample.tracks.wander(sample.motion, sample.outside)
        scores["wander_px"] = None if wander is None else wander * pixels
        if sample.motion is not None:
            scores["displacement_px"] = sample.motion.displacement * pixels
            scores["scale_error"] = max(abs(scale - 1) for scale in sample.motion.scale)
            scores["agreement"] = sample.motion.support
        return scores
