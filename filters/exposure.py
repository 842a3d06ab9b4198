"""Exposure: did the edit change the brightness, contrast or colours of the whole image?

Assumes that outside the edit one tone (gain and offset) leads from source to edited image (`crispedit.tone`).
"""

import numpy as np

from crispedit import tone
from crispedit.parts import Bound, Filter, Sample, Score, at_most
from crispedit.tone import Pixels

LEAST_SPREAD, LEAST_COLOUR = 12.0, 6.0
"""Standard deviation of luma, and root mean square of colour, in levels, from which on a gain is measured."""
JUST, KNOWN = 3.0, 4.0
"""Less than that, but at least JUST levels, is enough if it is KNOWN times the error that the gain leaves."""

CERTAIN = 2.0
"""Standard errors: a redrawn image varies, and a gain must exceed that."""


class Exposure(Filter):
    """`drift` is the mean change of brightness, `cast` the largest departure of a channel from it, both 0-1; `contrast`
    and `saturation` are the relative changes of the spread of luma and of colour, as far as they are certain (0.08: at
    least 8 % more); `explained` is the share of the pixels that the tone explains. All others are null if `explained`
    is under `least_explained`, and for a background edit without a true mask, whose new surroundings have their own
    tone. Contrast and saturation are also null if the image has too little of either, saturation if `explained` is
    under half."""

    least_explained: float = 0.25

    version = 5
    scores = {"drift": float, "cast": float, "contrast": float, "saturation": float, "explained": float}
    # Of 76 good pairs of 9 real editors. Those left intact measure 0.00 to 0.01 of each. Drawn anew, brightness drifts
    # by 0.032 and a channel by 0.020 at most. Contrast falls by up to 0.10 and, but for one, rises by 0.03 at most (a
    # decoder flattens); colours lose up to 0.11 and, but for one, gain 0.06 at most.
    bounds = at_most(drift=0.033, cast=0.021)
    bounds |= {"contrast": Bound(min=-0.11, max=0.033), "saturation": Bound(min=-0.15, max=0.07)}
    cost = 1.6

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        scores: dict[str, Score] = dict.fromkeys(self.scores)
        outside = None if sample.mask is None else sample.outside
        fitted = tone.fit(sample.source_small, sample.edited_small, outside, sample.noise.look)
        if fitted is None:
            return scores
        scores["explained"] = fitted.explained
        surroundings = sample.category == "background" and sample.mask is None
        if surroundings or fitted.explained < self.least_explained:
            return scores
        shift = fitted.shift
        brightness = shift.mean(axis=0)
        scores["drift"] = float(np.abs(brightness).mean() / 255)
        scores["cast"] = float(np.abs(shift - brightness).mean(axis=1).max() / 255)
        scores["contrast"], saturation = _gains(fitted.source, fitted.edited)
        if fitted.explained >= 0.5:
            scores["saturation"] = saturation
        return scores


def _gains(x: Pixels, y: Pixels) -> tuple[float | None, float | None]:
    """How much steeper luma and colour became (0.08: by 8 %); None where there is too little of it."""
    luma_x, luma_y = x.mean(axis=0, keepdims=True), y.mean(axis=0, keepdims=True)
    contrast = _gain(_centred(luma_x), _centred(luma_y), LEAST_SPREAD)
    colour_x, colour_y = x - luma_x, y - luma_y
    if np.sqrt((colour_x**2).sum(axis=0).mean()) < LEAST_COLOUR:
        return contrast, None
    # A cast shifts all colours equally; saturation scales each of them. For a single hue, the two are the same.
    saturation = _gain(_centred(colour_x), _centred(colour_y), LEAST_COLOUR / 2)
    return contrast, _gain(colour_x, colour_y, np.inf) if saturation is None else saturation


def _centred(values: Pixels) -> Pixels:
    return np.asarray(values - values.mean(axis=1, keepdims=True))


def _gain(x: Pixels, y: Pixels, least: float) -> float | None:
    """The slope of y over x, minus 1, as far as it is certain: the end of its interval (`CERTAIN` standard errors) that
    is nearer to 0. None if the spread of x is below `least`, and below `KNOWN` times the residual."""
    power = float((x * x).sum())
    spread = np.sqrt(power / x.shape[1])
    if spread == 0:
        return None
    slope = float((x * y).sum()) / power
    left = np.sqrt(((y - slope * x) ** 2).sum() / x.shape[1])
    if spread < min(least, max(JUST, KNOWN * left)):
        return None
    error = left / (spread * x.shape[1] ** 0.5)
    return float(np.copysign(max(0.0, abs(slope - 1) - CERTAIN * error), slope - 1))
