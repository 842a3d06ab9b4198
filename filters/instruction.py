"""Instruction: the probability, by a trained model, that the instruction asks for an edit of the pair's category.

It reads only the text (`crispedit.classifier`), no pixels: it finds mislabelled pairs and instructions of other pairs.
`clip` and `judge` measure whether the image follows the instruction. It assumes English.
"""

from typing import Any

from crispedit import weights
from crispedit.classifier import CATEGORIES, asked
from crispedit.parts import Filter, Sample, Score


class Instruction(Filter):
    """`category`: the probability, 0-1, that the instruction asks for an edit of the pair's category, alone or among
    others. Null without an instruction, for one that the classifier cannot read (another language), and for a category
    that it does not know.

    No default bound: how many good pairs a bound rejects depends on the instructions' language
    (`benchmarks/classifier.py`).
    """

    scores = {"category": float}
    version = 2
    cost = 0.3

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"weights": weights.fingerprint("classifier")}

    def measure_one(self, sample: Sample) -> dict[str, Score]:
        known = sample.instruction and sample.category in CATEGORIES
        chances = asked(sample.instruction or "") if known else None
        return {"category": None if chances is None else round(chances[sample.category or ""], 6)}
