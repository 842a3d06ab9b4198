"""What a clause of an instruction asks for: a verb with a subject and a result, read by what these are.

A reader takes the words of a clause, its verb first, and gives a category with the log-odds for it.
"""

from __future__ import annotations

from collections.abc import Collection

from crispedit.instruction import lexicon
from crispedit.instruction.clauses import Words
from crispedit.instruction.lexicon import (
    AROUND,
    COPULAS,
    KNOWN,
    MANNERS,
    OPERATORS,
    THE,
    VERBS,
    inflects,
    listed,
)
from crispedit.instruction.phrases import (
    colored,
    core_of,
    head_of,
    kind,
    kind_of_place,
    same_thing,
    sets_scene,
    surrounds,
    treats,
)

CATEGORIES = ("add", "background", "color", "motion", "remove", "replace", "style")
SURE, LIKELY, GUESS = 4.0, 3.0, 1.5
"""Log-odds of a reading: the words name the category; the construction usually means it; nothing else is left."""
Reading = tuple[str, float]
"""A category and the log-odds for it."""


def read_clause(words: Words) -> Reading | None:
    words, alternative = cut(words, {"instead"})
    verb, rest = words[0], words[1:]
    if verb in _NOTHING or (verb in ("fewer", "less") and kind(rest) == "thing"):
        return "remove", SURE
    if verb == "behind" or sets_scene(cut(words, {"as"})[1]):
        return "background", SURE
    if _parts(words):
        return _remove([verb, *(word for word in rest if word not in ("out", "off", "away", "down"))])
    if verb == "light" and rest and listed(rest[0], lexicon.COLORS):  # "light green couch"
        return "color", LIKELY
    operator = next((name for name, verbs in OPERATORS.items() if inflects(verb, verbs)), None)
    if operator in (None, "cause") and any(word in _NOTHING or word == "not" for word in words):
        return "remove", SURE
    if same_thing(alternative, words):
        return "color", SURE
    if alternative and (found := kind(alternative)) in ("color", "style", "motion", "background"):
        return found, SURE
    if words[:2] == ["put", "on"]:
        return "add", LIKELY
    if operator in ("put", "cause", "give") and rest and rest[0] in lexicon.PREPOSITIONS:
        words, operator = rest, None
    if (
        operator in ("add", "put", "move")
        and verb in lexicon.ACTIONS
        and rest
        and inflects(rest[0], lexicon.DIRECTIONS)
    ):
        operator = None
    manner = (
        kind(words) == "style" and inflects(words[-1], MANNERS) and not any(word in THE for word in words)
    )
    if manner or (operator == "recolor" and verb.endswith("ed") and verb != "color"):
        operator = None
    if verb in ("if", "as", "like", "by") or (verb in ("look", "looks") and rest[:1] == ["like"]):
        reading = _fragment(words)
    elif operator is None:
        reading = _action(words) or _statement(words) or _fragment(words)
    else:
        reading = _READERS[operator](words) if rest else _BARE.get(operator)
    unsure = reading is None or reading[0] in ("add", "remove") or reading == ("style", LIKELY)
    if alternative and (unsure or (reading and reading[0] == "motion" and alternative[0] in _ARTICLES)):
        return "replace", SURE
    return reading


def _parts(words: Words) -> bool:
    """Whether something is taken away by a verb and a particle: "take the lamp out", "kick him out of the picture"."""
    particle = any(word in ("out", "off", "away", "from", "down") for word in words[1:])
    leaves = "out" in words[:-1] and words[-1] in lexicon.WHOLE
    unknown = particle and "from" not in words and words[1] in THE and not inflects(words[0], KNOWN)
    return leaves or unknown or (particle and inflects(words[0], lexicon.PARTING))


def cut(words: Words, at: Collection[str]) -> tuple[Words, Words]:
    """The words before and after the first of `at`, which cannot be the first word."""
    for index, word in enumerate(words):
        if index and word in at:
            return words[:index], words[index + 1 :]
    return words, []


def _result(subject: Words, result: Words, nominal: bool = False) -> Reading:
    """What it means that `subject` becomes `result`; another thing unless one of the two says otherwise."""
    before, after = kind(subject), kind(result, nominal)
    if sets_scene(subject) or sets_scene(result):
        return "background", SURE
    if after == "style" and any(listed(word, lexicon.WHOLE) for word in subject):
        return "style", SURE
    manner = before == "style" and (
        subject[0] not in lexicon.DETERMINERS or inflects(head_of(subject)[-1], MANNERS)
    )
    if before in ("motion", "color") or manner:
        return before, SURE
    if after in ("color", "style"):
        return after, SURE
    if after == "gone":
        return "remove", SURE
    if result and listed(result[-1], {"us", "me", "side", "spot"}):
        return "motion", LIKELY
    told_apart = bool(subject) and not listed(subject[-1], lexicon.PRONOUNS - {"this"})
    seems = result[:2] == ["look", "like"] and after in ("thing", "whole")
    if before == "whole" and after != "background" and (told_apart or seems):
        return "style", LIKELY
    if after == "motion":
        place = result[len(head_of(result)) :]
        new = place[1:2] == ["a"] and place[0] in ("in", "on", "at")
        poses = (new or result[0] in _STATIVE) and kind_of_place(place) == "background"
        return ("background", LIKELY) if poses else ("motion", SURE)
    if after == "background" and (surrounds(subject) or result[0] not in lexicon.INDEFINITE):
        return "background", SURE
    if (
        subject
        and result
        and inflects(subject[-1], AROUND - lexicon.PRONOUNS)
        and inflects(result[-1], lexicon.PLACES)
    ):
        return "background", LIKELY
    if same_thing(subject, result):
        return ("color" if any(listed(word, lexicon.COLORS) for word in result) else "motion"), SURE
    return "replace", LIKELY if result else GUESS


def _predicate(words: Words) -> tuple[Words, Words]:
    """The subject and what is said of it, where no word stands between: "the grass | greener", "her | wave"."""
    pronoun = listed(words[0], lexicon.PRONOUNS) and not (
        words[0] == "her" and len(words) > 2 and not _says(words[1:])
    )
    start = 1 if pronoun else 2 if listed(words[0], lexicon.DETERMINERS | lexicon.INDEFINITE) else 1
    for index in range(start, len(words)):
        inside = words[index - 1].endswith("'s") or (index > start and listed(words[index - 1], _INSIDE))
        if not inside and _says(words[index:]):
            return words[:index], words[index:]
    for index in range(start, len(words)):
        if words[index] in lexicon.PREPOSITIONS and kind_of_place(words[index:]):
            return words[:index], words[index:]
    return words, []


def _says(words: Words) -> bool:
    """Whether the words can be a predicate on their own."""
    first, rest = words[0], words[1:]
    if first in ("a", "an", "have", "has", "look", "in-style") or first in COPULAS:
        return True
    if any(inflects(first, verbs) for verbs in (lexicon.ACTIONS, lexicon.ADDED_BY, *OPERATORS.values())):
        if not rest or rest[0] in _AFTER_VERB or inflects(rest[0], _ADVERBS) or rest[0].endswith("ly"):
            return True
        acts = first in lexicon.ACTIONS or (first.endswith(("s", "ing")) and inflects(first, lexicon.ACTIONS))
        return (acts and not colored(rest)) or (
            first.endswith(("ed", "ing")) and listed(rest[0], lexicon.COLORS)
        )
    head = head_of(words)
    core = core_of(head)
    return bool(core) and (
        colored(core)
        or core[-1].endswith("less")
        or all(listed(word, _ADJECTIVES) or word.endswith("er") for word in core)
        or all(listed(word, lexicon.TIMES_AND_WEATHER) for word in core)
    )


def _action(words: Words) -> Reading | None:
    """An imperative of movement: "raise his arm", "look left"."""
    if words[0] in ("wear", "don", "sport"):
        return "add", LIKELY
    if not inflects(words[0], lexicon.ACTIONS):
        return None
    thing = words[1:]
    if thing and kind(thing) == "style":
        return "style", LIKELY
    if (
        thing
        and thing[0] in lexicon.INDEFINITE
        and len(head_of(thing)) < len(thing)
        and words[0] in lexicon.ACTIONS
    ):
        return "add", LIKELY
    return "motion", LIKELY


def _statement(words: Words) -> Reading | None:
    """A sentence about how it should be: "the dog be a fox", "the plate should have a slice on it"."""
    for index, word in enumerate(words):
        subject, predicate = words[:index], words[index + 1 :]
        if not subject or not predicate:
            continue
        if "like" in subject or (subject[1:] and subject[-1] in ("he", "she", "they")):  # a clause within
            continue
        if word == "be":
            if subject == ["there"]:
                return ("remove", LIKELY) if predicate[0] == "too" else ("add", SURE)
            if kind(predicate) == "color" and not sets_scene(subject):
                return "color", SURE
            if inflects(predicate[0], lexicon.ADDED_BY):
                return "add", SURE
            if subject[0] in lexicon.INDEFINITE and kind(predicate) == "motion":
                return "add", LIKELY
            return _passive(subject, predicate) or _result(subject, predicate)
        if word in ("have", "has", "having"):
            return _gift(subject, predicate)
        if word in ("say", "says", "spell"):
            return "replace", LIKELY
        if inflects(word, lexicon.ADDED_BY) and not inflects(predicate[0], lexicon.BODY):
            return "add", SURE
    return None


def _passive(subject: Words, predicate: Words) -> Reading | None:
    """ "the walls | painted green" is "paint the walls green"; "the girl | lose her hat" is "lose her hat"."""
    verb, rest = predicate[0], predicate[1:]
    if rest and verb in lexicon.ACTIONS:
        return None
    operators = {name: verbs for name, verbs in OPERATORS.items() if name != "cause"}
    operator = next((name for name, verbs in operators.items() if inflects(verb, verbs)), None)
    parts = _parts(predicate)
    if operator is None and not parts:
        return None
    if rest and verb in VERBS | lexicon.PARTING:
        return read_clause(predicate)
    active = [verb, *subject, *rest]
    return _remove(active) if parts or operator is None else _READERS[operator](active)


def _fragment(words: Words) -> Reading | None:
    """A phrase without a verb names what should be seen: "night", "a red door", "some graffiti on the wall"."""
    left, right = cut(words, {"to"})
    if right and words[0] not in lexicon.PREPOSITIONS:
        return _result(left, right)
    if words[0] == "if" and any(word[0].isupper() for word in words):
        return "style", LIKELY
    if "behind" in words[-2:] and listed(words[-1], lexicon.PRONOUNS | {"behind"}):
        return "background", LIKELY
    if words[0] in ("with", "plus") and words[1:] and (words[1] in lexicon.INDEFINITE or not kind(words)):
        return _gift([], words[1:])
    for_other = cut(words, {"for"})
    if for_other[1] and not any(listed(part[0], _AFTER_VERB) for part in for_other):
        return "replace", GUESS
    if words[0] in lexicon.DETERMINERS and (predicated := _predicate(words))[1]:
        return _passive(*predicated) or (_result(*predicated)[0], LIKELY)
    found, core = kind(words), core_of(head_of(words))
    tinted = bool(core) and listed(core[0], lexicon.COLORS) and core[0] == words[0]
    if tinted and found in ("thing", "background") and not inflects(core[-1], AROUND):
        return "color", LIKELY
    if words[0] in ("as", "like") and found not in ("background", "color"):
        return "style", LIKELY
    if found in CATEGORIES:
        return found, LIKELY
    if found == "gone":
        return "remove", LIKELY
    if words[0] == "if":
        return "style", GUESS
    subject, predicate = _predicate(words)
    if predicate and words[0] not in lexicon.INDEFINITE:  # nothing new, so something said of what is there
        return _passive(subject, predicate) or (_result(subject, predicate)[0], LIKELY)
    if "background" in words or "distance" in words:
        return "background", GUESS
    if words[0] in lexicon.INDEFINITE:
        return "add", LIKELY
    if any(listed(word, lexicon.COLORS) for word in head_of(words)):
        return "color", GUESS
    if (
        words[1:] and words[1] in THE and not inflects(words[0], KNOWN)
    ):  # an unknown verb: "festoon the gate with ivy"
        return ("add" if "with" in words else "motion"), GUESS
    return None


def _add(words: Words) -> Reading:
    thing = words[1:]
    core = core_of(head_of(thing)) or thing
    place = thing[len(head_of(thing)) :]
    weather = listed(core[-1], lexicon.TIMES_AND_WEATHER) and (not place or listed(place[-1], AROUND))
    if (
        sets_scene(thing)
        or weather
        or (inflects(core[-1], lexicon.SURROUNDINGS | lexicon.WHOLE) and kind(place) == "background")
    ):
        return "background", SURE
    whole = bool(place) and listed(place[-1], lexicon.WHOLE)
    manner = kind(thing) == "style" and (whole or words[0] in _DEPICTING | {"apply", "overlay"})
    depicted = words[0] in _DEPICTING and kind(thing) == "whole"
    if treats(core) or manner or depicted or (whole and words[0] == "apply"):
        return "style", SURE
    if kind(thing) == "color":
        return "color", SURE
    return "add", SURE


def _put(words: Words) -> Reading:
    thing = head_of(words[1:])
    place = words[1 + len(thing) :]
    core = core_of(thing) or thing
    if sets_scene(thing):
        return "background", SURE
    if treats(core) or kind_of_place(place) == "style" or "in-style" in words:
        return "style", SURE
    tinted = place[:1] in (["in"], ["to"]) and kind_of_place(place) == "color"
    if kind(thing) == "color" or tinted:
        return "color", SURE
    if not listed(thing[0], lexicon.DETERMINERS | lexicon.PRONOUNS) and thing[:2] not in _ONE_HAND:
        return "add", SURE
    if inflects(core[-1], lexicon.BODY):
        return "motion", SURE
    if place and place[0] == "from":
        return "remove", LIKELY
    if place and place[0] == "with" and kind_of_place(place) != "background":
        return ("background" if "behind" in place else "add"), LIKELY
    if not place and words[0] in OPERATORS["remove"]:
        return "remove", LIKELY
    elsewhere = bool(place) and kind_of_place(place) in ("background", "color")
    return ("background" if elsewhere else "motion"), LIKELY


def _give(words: Words) -> Reading:
    rest = words[1:]
    start = 0 if rest[0] in lexicon.INDEFINITE else 1 if listed(rest[0], lexicon.PRONOUNS) else 2
    articles = (i for i in range(start, len(rest)) if rest[i] in lexicon.INDEFINITE | {"the"})
    article = next((i for i in articles if i == 0 or rest[i - 1] not in lexicon.PREPOSITIONS), None)
    start = start if article is None else article
    return _gift(rest[:start], rest[start:])


def _gift(recipient: Words, gift: Words) -> Reading:
    """What it means that the recipient has the gift."""
    found, core = kind(gift), core_of(head_of(gift))
    if not core:
        return "add", GUESS
    if found == "motion" or (
        inflects(core[-1], lexicon.LOOKS) and any(listed(w, lexicon.POSE_ADJECTIVES) for w in core)
    ):
        return "motion", SURE
    if sets_scene(gift):
        return "background", SURE
    whole = kind(recipient) == "whole"
    colored = any(listed(word, lexicon.COLORS) for word in gift)
    intrinsic = inflects(core[-1], lexicon.INTRINSIC | lexicon.BODY | lexicon.LOOKS)
    if found == "color" or (colored and intrinsic and not whole):
        return "color", SURE
    if found == "style" or treats(core) or (whole and inflects(core[-1], lexicon.LOOKS)):
        return "style", SURE
    return "add", LIKELY


def _remove(words: Words) -> Reading:
    if words[0] == "hide" and words[1] in lexicon.INDEFINITE:
        return "add", LIKELY
    return ("background" if sets_scene(words[1:]) else "remove"), SURE


def _replace(words: Words) -> Reading:
    subject, result = cut(words[1:], {"with", "for", "by", "to", "into"})
    if kind(subject) == "thing" and kind(result) == "style":  # "replace the clock with a painting"
        return "replace", LIKELY
    category, weight = _result(subject, result, nominal=True)
    return category, max(weight, LIKELY)


def _turn(words: Words) -> Reading:
    rest = words[1:]
    if rest[0] in ("into", "to", "as"):
        return _result(["image"] if words[0] in _DEPICTING else [], rest[1:], nominal=True)
    if "except" in rest:
        return "background", LIKELY
    if rest[0] in lexicon.INDEFINITE and words[0] in _DEPICTING:
        return "add", LIKELY
    for markers in ({"into"}, {"to", "as"}, {"for"}):
        subject, result = cut(rest, markers)
        if result:
            return _result(subject, result, nominal="into" in markers)
    subject, result = _predicate(rest)
    reading = _result(subject, result)
    return ("motion", GUESS) if words[0] == "turn" and reading == ("replace", GUESS) else reading


def _recolor(words: Words) -> Reading:
    rest = words[1:]
    thing = head_of(rest)
    found = kind(rest[len(thing) :])
    if (
        found == "style"
        or "style" in rest
        or "in-style" in rest
        or (words[0] == "paint" and kind(rest) == "whole")
    ):
        return "style", SURE
    if sets_scene(thing):
        return "background", SURE
    if thing[0] in lexicon.INDEFINITE:
        return "add", LIKELY
    if any(listed(word, lexicon.COLORS) for word in rest):
        return "color", SURE
    if kind(thing) == "whole" and not listed(thing[-1], lexicon.PRONOUNS):
        return "style", LIKELY
    return ("add" if "with" in rest or "on" in rest else "color"), LIKELY


def _cause(words: Words) -> Reading:
    rest = words[1:]
    if len(rest) > 2 and inflects(rest[1], lexicon.BACKGROUND) and rest[0] in THE:
        return "background", SURE
    if rest[-1] in ("disappear", "vanish", "gone"):
        return "remove", SURE
    if rest[0] in ("a", "an") and listed(rest[1], lexicon.SIZES):
        return "motion", LIKELY
    stated = _statement(rest)
    if stated is not None:
        return stated
    subject, predicate = _predicate(rest)
    new = not listed(rest[0], lexicon.DETERMINERS | lexicon.PRONOUNS) and kind(predicate) == "motion"
    if new or (rest[0] in lexicon.INDEFINITE and rest[1:2] != ["of"]):
        made, of = cut(rest, {"out"})
        if of[:1] == ["of"] and not _predicate(made)[1]:  # "make a sketch out of the photo"
            return _result(of[1:], made, nominal=True)
        found = "style" if kind(predicate) == "style" else kind(subject if predicate else rest)
        named = ("background", "style") if predicate else ("background", "style", "motion")
        return (found if found in named else "add"), LIKELY
    if not predicate:
        found = kind(rest)
        return (found, LIKELY) if found in CATEGORIES else ("replace", GUESS)
    if predicate[0] == "to":
        predicate = predicate[1:] or predicate
    return _passive(subject, predicate) or _result(subject, predicate)


def _move(words: Words) -> Reading:
    rest = words[1:]
    thing = head_of(rest)
    place = rest[len(thing) :]
    if kind(thing) == "color" or "style" in thing:
        return ("style" if "style" in thing else "color"), SURE
    if any(inflects(word, lexicon.BODY) for word in thing):
        return "motion", SURE
    if thing[0] in lexicon.INDEFINITE:
        return "add", LIKELY
    if listed(words[0], _TRAVEL) and place and not listed(rest[-1], lexicon.DIRECTIONS):
        return "background", LIKELY
    if place[1:] and place[1] in lexicon.ACTIONS:
        return "motion", SURE
    if place and place[0] == "from" and "to" in place:
        place = place[place.index("to") :]
    elsewhere = place and place[0] != "from" and kind_of_place(place) == "background"
    if (elsewhere or kind(thing) == "background") and not any(
        listed(word, lexicon.DIRECTIONS) for word in rest
    ):
        return "background", LIKELY
    return "motion", SURE


def _style(words: Words) -> Reading:
    return ("add", LIKELY) if words[1] in lexicon.INDEFINITE else ("style", SURE)


_READERS = {
    "add": _add,
    "put": _put,
    "give": _give,
    "remove": _remove,
    "replace": _replace,
    "turn": _turn,
    "recolor": _recolor,
    "cause": _cause,
    "move": _move,
    "style": _style,
}
_BARE: dict[str, Reading] = {
    "remove": ("remove", LIKELY),
    "move": ("motion", LIKELY),
    "style": ("style", LIKELY),
}
"""What a verb alone asks for."""
_INSIDE = lexicon.DETERMINERS | lexicon.INDEFINITE | lexicon.PREPOSITIONS
"""After one of these a phrase goes on: no predicate begins."""
_NOTHING = frozenset("no without nobody nothing none minus sans".split())
_STATIVE = frozenset("stand standing pose posing appear appearing be live".split())
_DEPICTING = frozenset("draw create recreate generate show depict render redo reimagine reinterpret".split())
_ARTICLES = THE | {"a", "an"}
_ONE_HAND = (["one", "hand"], ["one", "arm"], ["one", "foot"], ["one", "leg"], ["one", "paw"])
_TRAVEL = frozenset("relocate transport teleport send take travel".split())
_AFTER_VERB = lexicon.DETERMINERS | lexicon.INDEFINITE | lexicon.PRONOUNS | lexicon.PREPOSITIONS
_ADVERBS = lexicon.BODY | lexicon.DIRECTIONS | lexicon.POSE_ADJECTIVES | lexicon.INTENSIFIERS
_ADJECTIVES = lexicon.POSE_ADJECTIVES | lexicon.STYLE_ADJECTIVES | lexicon.GONE | lexicon.DIRECTIONS
