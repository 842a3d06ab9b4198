"""The classifier: which of the seven categories an edit instruction asks for, by a small trained model.

Logistic regression over hashed words, word pairs and character n-grams. It was trained by
`crispedit.pipelines.shipped.train_classifier` on text written for this purpose; its weights and its card lie in
`crispedit/weights/classifier`. Reading an instruction needs NumPy alone and takes well under a millisecond.

The categories are those of `configs/categories`. An instruction in another language, or one that names no edit, is
`unknown`. `crispedit.zeroshot` does the same task with CLIP, for other categories.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from crispedit import weights

CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
UNKNOWN = "unknown"
LABELS = (*CATEGORIES, UNKNOWN)
BUCKETS = 1 << 17
"""Features are hashed into so many rows of the weights."""
LEAST_KNOWN_WORDS = 0.6
"""An instruction with a smaller share of words that the training text holds is `unknown`: it is not English."""
LEAST_ASKED = 0.5
"""A category counts as asked for from this probability."""


@dataclass(frozen=True)
class Classification:
    """The likeliest category with its probability in [0, 1], and the next one with its own."""

    category: str
    """One of CATEGORIES, or `unknown`."""
    score: float
    runner_up: str
    runner_up_score: float
    categories: tuple[str, ...] = ()
    """Every category that the instruction asks for, likeliest first: a compound instruction has several."""


def classify(instruction: str) -> Classification:
    """What an instruction asks for. Of a compound instruction, `category` is the edit that it names first."""
    chances, asked = _read(instruction)
    best, second = sorted(LABELS, key=lambda label: (-chances[label], label))[:2]
    wanted = sorted((c for c in CATEGORIES if asked[c] >= LEAST_ASKED and c != best), key=lambda c: -asked[c])
    categories = () if best == UNKNOWN else (best, *wanted)
    return Classification(best, chances[best], second, chances[second], categories)


def asked(instruction: str) -> dict[str, float] | None:
    """For each category the probability that the instruction asks for it, alone or among others. They may add up to
    more than 1. None where the instruction is `unknown`."""
    chances, wanted = _read(instruction)
    return None if max(chances, key=chances.__getitem__) == UNKNOWN else wanted


_SECOND_IMAGE = re.compile(
    r"\b(?:second|2nd|other|another|reference|style|provided|attached) (?:image|picture|photo|photograph)\b"
    r"|\b(?:image|picture|photo|figure)s? (?:2|two|b)\b|\b(?:both|two) (?:images|pictures|photos)\b"
    r"|\b(?:to|with|into|by|as|like|of) \[v\*\]",
    re.IGNORECASE,
)


def needs_second_image(instruction: str) -> bool:
    """Whether the words take something from an image that is not the source: "the dog in the second image"."""
    return instruction.count("<image>") > 1 or _SECOND_IMAGE.search(instruction) is not None


def _read(instruction: str) -> tuple[dict[str, float], dict[str, float]]:
    """The probability of each label as the first edit, and of each category as one of the edits."""
    model = _model()
    words = tokens(instruction)
    named = [bucket(f"w {word}") for word in words if word.isalpha()]
    if not named or np.mean(model.seen[named]) < LEAST_KNOWN_WORDS:
        return {label: float(label == UNKNOWN) for label in LABELS}, dict.fromkeys(CATEGORIES, 0.0)
    rows, values = features(words)
    logits = values @ model.weights[rows].astype(np.float32) + model.bias
    first, any_ = logits[: len(LABELS)] / model.temperature[0], logits[len(LABELS) :] / model.temperature[1]
    chances = np.exp(first - first.max())
    chances /= chances.sum()
    wanted = 1 / (1 + np.exp(-any_))
    return dict(zip(LABELS, chances.tolist(), strict=True)), dict(
        zip(CATEGORIES, wanted.tolist(), strict=True)
    )


@dataclass(frozen=True)
class Model:
    """The weights, as they are stored."""

    weights: NDArray[np.float16]
    """[BUCKETS, 15]: the eight labels as the first edit, then the seven categories as one of the edits."""
    bias: NDArray[np.float32]
    """[15]"""
    temperature: NDArray[np.float32]
    """[2]: what the logits of either part are divided by, so that the probabilities are calibrated."""
    seen: NDArray[np.bool_]
    """[BUCKETS]: the words of the English training text."""


@cache
def _model() -> Model:
    with np.load(weights.folder("classifier") / "classifier.npz", allow_pickle=False) as stored:
        seen = np.unpackbits(stored["seen"]).astype(bool)
        return Model(stored["weights"], stored["bias"], stored["temperature"], seen)


# Features

_QUOTED = re.compile(r"""(?<!\w)(["“”‘'])[^"“”‘’']{1,40}["”’'](?!\w)""")
_TOKEN = re.compile(r"\[v\*\]|[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|[^\w\s]")
_CLAUSE_ENDS = frozenset(".,;:!?") | {"and", "then", "while"}
HEAD_WORDS = 14


def tokens(instruction: str) -> list[str]:
    """Lower-case words, numbers and marks. What stands in quotes is one token, for its words name no edit."""
    text = _QUOTED.sub(" quotedtext ", instruction.replace("<image>", " "))
    return _TOKEN.findall(text.casefold())


def features(words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of the weights that an instruction has, and the value of each. Each group of features has unit length,
    so that a long explanation after the order does not drown it."""
    groups = (list(_words(words)), list(_words(_head(words), "head ")), list(_characters(words)))
    rows, values = [], []
    for group in groups:
        buckets = {bucket(feature) for feature in group}
        rows += sorted(buckets)
        values += [len(buckets) ** -0.5] * len(buckets)
    return np.array(rows, np.int64), np.array(values, np.float32)


def bucket(feature: str) -> int:
    """The row of the weights of a feature; the same on every machine."""
    return zlib.crc32(feature.encode()) & (BUCKETS - 1)


def _head(words: list[str]) -> list[str]:
    """The first clause that has at least two words: what is asked for first."""
    for i, word in enumerate(words[:HEAD_WORDS]):
        if word in _CLAUSE_ENDS and i >= 3:
            return words[:i]
    return words[:HEAD_WORDS]


def _words(words: list[str], name: str = "") -> Iterator[str]:
    """Words, and pairs and triples of neighbours; pairs with a gap of up to three words between."""
    padded = ["^", *words, "$"]
    for i, word in enumerate(padded):
        yield f"{name}w {word}"
        for gap in range(1, 5):
            if i + gap < len(padded):
                yield f"{name}{gap} {word} {padded[i + gap]}"
        if i + 2 < len(padded):
            yield f"{name}t {word} {padded[i + 1]} {padded[i + 2]}"


def _characters(words: list[str]) -> Iterator[str]:
    """Character n-grams of 3 to 5 within words, ends marked: misspelt and inflected words share most of theirs."""
    for word in words:
        marked = f"<{word}>"
        for size in (3, 4, 5):
            for i in range(len(marked) - size + 1):
                yield f"c {marked[i : i + size]}"
