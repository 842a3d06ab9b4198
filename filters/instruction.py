"""Instruction: do the words ask for the kind of edit that the pair is filed under? The probability, by grammar.

It reads words alone (`crispedit.classifier`), no pixels: it finds mislabelled pairs and instructions that belong to
another pair. Whether the picture did what it was told is for `clip` and `judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from crispedit.classifier import CATEGORIES, probabilities
from crispedit.parts import Filter
from crispedit.record import Sample, Score


class Instruction(Filter):
    """`category`: the probability, 0-1, that the instruction asks for an edit of the pair's category. Null without an
    instruction, and for a category that the classifier does not know.

    No default bound, for it is language that decides how many good pairs a bound costs: of 469 held-out instructions
    (`benchmarks/classifier.py`) 3.8 % measure under 0.05 for their own category, and 98.2 % do for another; 1.9 % and
    66 % under 0.02.
    """

    scores: ClassVar[Mapping[str, type[float] | type[int]]] = {"category": float}
    cost: ClassVar[float] = 0.3

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score]]:
        return [{"category": _probability(sample)} for sample in samples]


def _probability(sample: Sample) -> float | None:
    if not sample.instruction or sample.category not in CATEGORIES:
        return None
    return round(probabilities(sample.instruction)[sample.category], 6)
