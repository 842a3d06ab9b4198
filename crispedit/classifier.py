"""The classifier: which of the seven categories an edit instruction asks for, by a small grammar of English.

An instruction is read as a person would: politeness and typing slips are cleared away, a compound instruction is
cut into clauses, and the first clause that asks for an edit decides. A clause is a verb with a subject and a result
("turn / the bike / into a horse"), and what the result *is* (a color, a manner of painting, a place or a time, a
movement, another thing) says what kind of edit it is. The grammar lives in `crispedit.instruction`. Nothing is
downloaded, nothing is learned, and the same instruction gets the same answer everywhere.

The categories are those of `configs/categories`. Captions and the measured change, where they are known, count as
further evidence. `crispedit.zeroshot` does the same task with CLIP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from crispedit.instruction import lexicon
from crispedit.instruction.clauses import Words, clauses, plain
from crispedit.instruction.grammar import CATEGORIES as CATEGORIES
from crispedit.instruction.grammar import GUESS, Reading, read_clause
from crispedit.instruction.lexicon import STYLE, VERBS, inflects


@dataclass(frozen=True)
class Classification:
    """The likeliest category with its probability in [0, 1], and the next one with its own."""

    category: str
    score: float
    runner_up: str
    runner_up_score: float


def classify(
    instruction: str,
    *,
    source_caption: str | None = None,
    target_caption: str | None = None,
    changed_fraction: float | None = None,
) -> Classification:
    """The category of an edit instruction in English.

    `changed_fraction` is the share of pixels, 0 to 1, that the edit visibly changed. An instruction that says
    nothing the grammar knows gets a score near 1/7: compare `score` with a bound rather than trust a guess.
    """
    found = probabilities(
        instruction,
        source_caption=source_caption,
        target_caption=target_caption,
        changed_fraction=changed_fraction,
    )
    best, second = sorted(CATEGORIES, key=lambda category: (-found[category], category))[:2]
    return Classification(best, found[best], second, found[second])


def probabilities(
    instruction: str,
    *,
    source_caption: str | None = None,
    target_caption: str | None = None,
    changed_fraction: float | None = None,
) -> dict[str, float]:
    """The probability of every category, on the evidence that `classify` takes."""
    evidence = dict.fromkeys(CATEGORIES, 0.0)
    readings = read(instruction)
    if source_caption is not None and target_caption is not None:
        readings += compare(source_caption, target_caption)
    if changed_fraction is not None:
        readings += extent(changed_fraction)
    for category, weight in readings:
        evidence[category] += weight
    total = sum(math.exp(weight) for weight in evidence.values())
    return {category: math.exp(weight) / total for category, weight in evidence.items()}


def read(instruction: str) -> list[Reading]:
    """What the instruction's clauses ask for, first to last; after one that is clear, the next counts a third."""
    readings: list[Reading] = []
    weight = 1.0
    for clause in sorted(clauses(plain(instruction)), key=_describes):
        reading = read_clause(clause)
        if reading is not None:
            readings.append((reading[0], reading[1] * weight))
            weight *= 1 / 3 if reading[1] > GUESS else 1
    return readings


def _describes(words: Words) -> bool:
    """Whether a clause only says how things are or where: "the vase is too dark", "in the sky"; orders come first."""
    return words[0] not in VERBS | lexicon.ACTIONS | lexicon.PARTING


def compare(source_caption: str, target_caption: str) -> list[Reading]:
    """What two captions say by the words that only one of them has."""
    before, after = (
        set(plain(caption).split()) - _FUNCTION_WORDS for caption in (source_caption, target_caption)
    )
    lost, gained = before - after, after - before
    if not lost and not gained:
        return []
    for category, words in _CAPTION_WORDS.items():
        if gained and all(inflects(word, words) for word in gained):
            return [(category, GUESS)]
    return [("remove" if not gained else "add" if not lost else "replace", GUESS)]


def extent(changed_fraction: float) -> list[Reading]:
    """What the share of changed pixels says: only a style or a background changes nearly everything."""
    if changed_fraction > 0.6:
        return [("style", GUESS), ("background", GUESS)]
    if changed_fraction < 0.2:
        return [("style", -GUESS), ("background", -GUESS)]
    return []


_FUNCTION_WORDS = (
    lexicon.DETERMINERS | lexicon.PREPOSITIONS | lexicon.PRONOUNS | {"a", "an", "and", "or", "be"}
)
_CAPTION_WORDS = {
    "color": lexicon.COLORS | lexicon.COLOR_MODIFIERS,
    "style": STYLE,
    "background": lexicon.TIMES_AND_WEATHER | lexicon.PLACES | lexicon.BACKGROUND,
    "motion": lexicon.ACTIONS | lexicon.POSE_ADJECTIVES | lexicon.DIRECTIONS,
}
