"""Preservation: changes where nothing should change.

Leakage is visible, coherent change above the pair's own noise (`crispedit.change`), away from the edit. An edit may
have several regions: without a true mask, every region at least a tenth as large as the largest counts as edit.
Redrawing the image is not leakage; but if not even a quarter was left as it was (`least_change`), leakage is
everywhere. A style is for the whole picture, unless the instruction gives it to one thing: "turn the cat into a
low-poly cat" leaves the room as it is.
"""

import re

import numpy as np

from crispedit import change
from crispedit.parts import Filter, Sample, Score, at_least, at_most

LEAST_REGION = 0.002
"""Share of the image; smaller changes are not leakage."""
SAME_THING = re.compile(
    r"\b(?:the|this|that) (?:[\w-]+ ){0,3}?([\w-]+)\b.*?\ban? (?:[\w-]+ ){0,6}?\1(?= *(?:[.,;!?]|$|with |of |and ))",
    re.IGNORECASE,
)
"""A style for one thing names it twice: "the cat ... a low-poly cat"."""
WHOLE = (
    "image picture photo photograph scene view shot frame style painting drawing illustration portrait render "
    "background place room interior house building garden park forest beach landscape world city town village street"
).split()
"""Words for the picture, and for what fills it."""


class Preservation(Filter):
    """`leakage`: the share, 0-1, of the area outside the edit where a viewer sees more than re-rendering.
    `least_change`: the 25th percentile of the Lab distance of local means; from 5 on, a viewer sees that not even the
    calmest quarter of the image was left as it was. `beside_thing`: the same for a style edit whose instruction
    restyles one thing; else null. `outside_ssim` is Wang et al. 2004 on luma over 8x8 blocks, `outside_change` the mean
    Lab distance. Outside is outside the true edit mask, or outside an estimated one (`crispedit.change.estimate`), each
    with a margin; its scores are null if it is smaller than `least_outside` of the image (a style edit has no
    outside)."""

    least_outside: float = 0.02

    version = 4
    scores = dict.fromkeys(
        ("leakage", "least_change", "beside_thing", "outside_change", "outside_ssim", "outside_fraction"), float
    )
    # least_change: of 113 pairs of 9 real editors judged by a person, local edits that were drawn anew measure 0.3 to
    # 5.7 when good but for one, and 5 to 11 when what surrounds the edit was replaced. An added or removed object
    # leaves more alone (categories add and remove: 4). beside_thing: as least_change. leakage: good ones measure 0.02
    # or less.
    bounds = at_most(leakage=0.0225, least_change=6.0, beside_thing=6.0) | at_least(outside_ssim=0.4)
    cost = 0.8

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        outside = sample.outside
        scores: dict[str, Score] = dict.fromkeys(self.scores)
        scores["outside_fraction"] = share = change.share(outside)
        if sample.mask is None or share >= self.least_outside:
            scores["least_change"] = sample.noise.look
            if sample.category == "style" and restyles_one_thing(sample.instruction or ""):
                scores["beside_thing"] = sample.noise.look
        if share < self.least_outside:
            return scores
        seen = change.stands_out(sample.look, sample.noise.expected(sample.texture))
        similarity = ssim(sample.blocks)
        whole = similarity[change.coverage(outside, similarity.shape) == 255]
        labels, areas = change.regions(seen & outside)
        large = change.chosen(labels, areas >= LEAST_REGION * seen.size)  # smaller ones are chance in redrawn texture
        scores["leakage"] = change.share(large, outside)
        scores["outside_change"] = float(sample.change[outside].mean())
        scores["outside_ssim"] = float(whole.mean()) if len(whole) else None
        return scores


def restyles_one_thing(instruction: str) -> bool:
    """Whether a style's instruction names the same thing before and after: "turn the cat into a low-poly cat". The
    picture and what fills it ("the city") are not one thing in it."""
    thing = SAME_THING.search(instruction)
    return thing is not None and thing[1].lower() not in WHOLE


def ssim(blocks: change.Moments) -> change.Map:
    """[H // 8, W // 8] structural similarity over blocks (Wang et al. 2004, eq. 13)."""
    mean_x, mean_y = blocks.means
    mean_xy = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_xy + c1) * (2 * blocks.covariance + c2) / ((squares + c1) * (blocks.variances + c2))
    return np.asarray(similarity, np.float32)
