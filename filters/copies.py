"""Copies: whether a picture is a copy of one in local benchmark folders, to keep benchmarks out of datasets.

`crispedit.copies` finds re-encoded, resized and slightly cropped copies, but not mirrored or rotated ones.
"""

from typing import Any

from pydantic import Field, PrivateAttr

from crispedit import copies
from crispedit.parts import Bound, Filter, Sample, Score


class Copies(Filter):
    """`source` and, of a pair, `edited`: how close the picture is to the benchmark picture that it copies, 0.9 to 1; 0
    if it is not a copy; null for a picture without detail. `source_of` and `edited_of` name the benchmark picture."""

    against: tuple[str, ...] = Field(min_length=1)
    """Folders of benchmark pictures, on every node."""

    scope = frozenset({"source", "pair"})
    scores = {"source": float, "edited": float}
    version = 3
    notes = ("source_of", "edited_of")
    bounds = {"source": Bound(max=0.5), "edited": Bound(max=0.5)}
    cost = 8.0

    _known: copies.Known | None = PrivateAttr(None)

    def load(self) -> None:
        self._known = copies.Known(copies.read(self.against))

    def identity(self) -> dict[str, Any]:
        """The options, with the folders' content in place of their paths. ValueError if a folder has no pictures."""
        identity = super().identity()
        identity["options"]["against"] = copies.digest(self.against)
        return identity

    def measure_one(self, sample: Sample) -> dict[str, Score | str]:
        if self._known is None:
            self.load()
        assert self._known is not None
        answer: dict[str, Score | str] = {"source": None, "edited": None}
        for side in ("source", "edited") if sample.is_pair else ("source",):
            fingerprint = copies.fingerprint(getattr(sample, f"{side}_gray"))
            if fingerprint is not None:
                copy = self._known.find(fingerprint)
                answer |= {side: 0.0} if copy is None else {side: copy.closeness, f"{side}_of": copy.name}
        return answer
