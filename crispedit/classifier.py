"""The classifier: which of the seven categories an edit instruction asks for, by a small trained model.

Logistic regression over hashed words, word pairs and character n-grams. It was trained by
`crispedit.pipelines.shipped.train_classifier` on text written for this purpose; its weights and its card lie in
`crispedit/weights/classifier`. It needs only NumPy and takes well under a millisecond for an instruction.

The categories are those of `configs/categories`. An instruction in another language, or one that names no edit, is
`unknown`.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispedit import weights

CATEGORIES = ("add", "remove", "replace", "color", "background", "style", "motion")
UNKNOWN = "unknown"
LABELS = (*CATEGORIES, UNKNOWN)
BUCKETS = 1 << 17
"""Rows of the weights, into which features are hashed."""
LEAST_KNOWN_WORDS = 0.6
"""An instruction with a smaller share of words from the training text is `unknown`: it is not English."""
LEAST_ASKED = 0.5
"""A category counts as asked for from this probability."""


@dataclass(frozen=True)
class Classification:
    """The likeliest category and the second one, with their probabilities in [0, 1]."""

    category: str
    """One of CATEGORIES, or `unknown`."""
    score: float
    runner_up: str
    runner_up_score: float
    categories: tuple[str, ...] = ()
    """Every category that the instruction asks for, likeliest first: a compound instruction has several."""


def classify(instruction: str) -> Classification:
    """The category of an instruction; of a compound instruction, the edit that it names first."""
    readings = _readings(instruction)
    chances = readings[0]
    best, second = sorted(LABELS, key=lambda label: (-chances[label], label))[:2]
    wanted = {category: max(read[category] for read in readings) for category in CATEGORIES}
    also = sorted((c for c in CATEGORIES if wanted[c] >= LEAST_ASKED and c != best), key=lambda c: -wanted[c])
    categories = () if best == UNKNOWN else (best, *also)
    return Classification(best, chances[best], second, chances[second], categories)


def asked(instruction: str) -> dict[str, float] | None:
    """The probability, for each category, that the instruction asks for it (perhaps among others, so the sum may exceed
    1). None for an `unknown` instruction."""
    readings = _readings(instruction)
    if _is_unknown(readings[0]):
        return None
    return {category: 1 - float(np.prod([1 - read[category] for read in readings])) for category in CATEGORIES}


def _readings(instruction: str) -> list[dict[str, float]]:
    """The label probabilities of each order of an instruction, from the first that asks for an edit."""
    readings = [_read(tokens(order)) for order in orders(instruction)]
    first = next((i for i, read in enumerate(readings) if not _is_unknown(read)), 0)
    return readings[first:]


def _is_unknown(chances: dict[str, float]) -> bool:
    return max(chances, key=chances.__getitem__) == UNKNOWN


def orders(instruction: str) -> list[str]:
    """Split a compound instruction before each clause that begins with an order: "add a hat and make it red" is two.
    "and the dog", "making sure that ..." and "put a cat in its place" are not split off."""
    cuts = [0]
    for join in _JOIN.finditer(instruction):
        word = _TOKEN.match(instruction, join.end())
        if word is not None and word[0].casefold() in ORDERS and join.start() > cuts[-1]:
            before = tokens(instruction[cuts[-1] : join.start()])
            is_order = len(before) > 2 and not ORDERS.isdisjoint(before)  # "go ahead and" is none
            if is_order and not _IN_ITS_PLACE.match(instruction, join.end()):
                cuts.append(join.end())
    return [instruction[start:end] for start, end in zip(cuts, [*cuts[1:], None], strict=True)]


_JOIN = re.compile(
    r"[.;!?,]\s+(?:(?:and|then|also|next|please)\b,?\s*)*|\s+(?:and|then|plus|also)\s+(?:(?:then|also)\s+)?",
    re.IGNORECASE,
)
_IN_ITS_PLACE = re.compile(
    r"[^.;!?]*\b(?:instead|there|in (?:its|their|the same) (?:place|spot|stead))\b", re.IGNORECASE
)
ORDERS = frozenset(
    """add insert include place put draw create give dress decorate hang remove delete erase eliminate take clear
    cut get replace swap substitute exchange switch change turn transform convert make recolor recolour paint repaint
    dye tint color colour darken lighten brighten blur isolate set move shift slide rotate flip tilt raise lower lift
    open close zoom enlarge shrink resize apply render redraw restyle stylize relight let have bring""".split()
)
"""The verbs that begin a further order."""


_SECOND_IMAGE = re.compile(
    r"\b(?:second|2nd|other|another|reference|style|provided|attached) (?:image|picture|photo|photograph)\b"
    r"|\b(?:image|picture|photo|figure)s? (?:2|two|b)\b|\b(?:both|two) (?:images|pictures|photos)\b"
    r"|\b(?:to|with|into|by|as|like|of) \[v\*\]",
    re.IGNORECASE,
)


def needs_second_image(instruction: str) -> bool:
    """Whether the instruction refers to another image than the source: "the dog in the second image"."""
    return instruction.count("<image>") > 1 or _SECOND_IMAGE.search(instruction) is not None


def _read(words: list[str]) -> dict[str, float]:
    """The probability of each label for the first edit that these words ask for."""
    model = _model()
    named = [bucket(f"w {word}") for word in words if word.isalpha()]
    if not named or np.mean(model["seen"][named]) < LEAST_KNOWN_WORDS:
        return {label: float(label == UNKNOWN) for label in LABELS}
    rows, values = features(words)
    logits = (values @ model["weights"][rows].astype(np.float32) + model["bias"]) / float(model["temperature"])
    chances = np.exp(logits - logits.max())
    return dict(zip(LABELS, (chances / chances.sum()).tolist(), strict=True))


@cache
def _model() -> dict[str, NDArray[Any]]:
    """`weights` [BUCKETS, 8], a column for each of LABELS; `bias` [8]; `temperature`, which divides the logits so that
    the probabilities are calibrated; `seen` [BUCKETS]: the words of the English training text."""
    with np.load(weights.folder("classifier") / "classifier.npz", allow_pickle=False) as stored:
        return {**stored, "seen": np.unpackbits(stored["seen"]).astype(bool)}


# Features

_QUOTED = re.compile(r"""(?<!\w)(["“”‘'])[^"“”‘’']{1,40}["”’'](?!\w)""")
_TOKEN = re.compile(r"\[v\*\]|[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+|[^\w\s]")
_CLAUSE_ENDS = frozenset(".,;:!?") | {"and", "then", "while"}
HEAD_WORDS = 14


def tokens(instruction: str) -> list[str]:
    """Lower-case words, numbers and marks. Quoted text is one token: its words do not name the edit."""
    text = _QUOTED.sub(" quotedtext ", instruction.replace("<image>", " "))
    return _TOKEN.findall(text.casefold())


def features(words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of the weights for these words, and the value of each. Each group of features has unit length, so that a
    long explanation does not outweigh the order."""
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
    """The first clause of at least two words."""
    ends = (i for i, word in enumerate(words[:HEAD_WORDS]) if word in _CLAUSE_ENDS and i >= 3)
    return words[: next(ends, HEAD_WORDS)]


def _words(words: list[str], name: str = "") -> Iterator[str]:
    """Words, pairs and triples of neighbours, and pairs with up to three words between them."""
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
