"""From an instruction's text to its clauses: politeness and typing slips cleared away, one word for one relation."""

from __future__ import annotations

import re
from functools import lru_cache

from crispedit.instruction import lexicon
from crispedit.instruction.lexicon import KNOWN, VERBS, inflects

Words = list[str]

_SPELLING = (
    (r"[“”]", '"'),
    (r'^"([^"]*)"$', r"\1"),
    (r'"[^"]+"', "text"),
    (r"[\"()]", ""),
    (r"[’`]", "'"),
    (r"\blet's\b", "let us"),
    (r"n't\b", " not"),
    (r"\b(i|we|you|he|she|it|they|there|that|what)'(?:d|ll|ve|m)\b", r"\1 would"),
    (r"\b(he|she|it|there|that|what|here)'s\b", r"\1 is"),
    (r",?\s*\b(?:please|kindly)\b,?\s*", " "),
    (r"colour", "color"),
    (r"grey", "gray"),
    (r"stylis", "styliz"),
    (r"black[ -](?:and|&)[ -]white|\bb ?& ?w\b", "monochrome"),
    (r"\bwatt?er[- ]?color", "watercolor"),
    (r"\bupside down\b", "upside-down"),
    (
        r"\b(mid|stained|low|cross|thumbs?|golden|pixel|comic|line|ink|oil|pop|art)[- ]"
        r"(air|glass|poly|stitch|up|hour|art|deco)\b",
        r"\1-\2",
    ),
    (r"\btime of (?:the )?day\b", "time-of-day"),
    (r"\bnight ?-?time\b", "night"),
    (r"\bbrush[- ]?stroke", "brush-stroke"),
    (r"\bre-(?=\w)", "re"),
    (r"\bwhole thing\b", "image"),
    (r"\bhand (drawn|painted)\b", r"hand-\1"),
    (r"\b(?:seem|appear|feel)(?=s? (?:like|as)\b)|\bresemble\b", "look like"),
    (r"\blook like like\b", "look like"),
    (r"\bhad\b", "have"),
    (r"\bunder water\b", "underwater"),
    (r"\bout of focus\b", "blurred"),
    (r"\bprefer (.+?) to (?=the|that|this|these|an?\b|his|her)(.+)", r"prefer \1 instead \2"),
    (r"\s*(?:->|→)\s*", " to "),
)
"""One spelling for one word."""
_RELATIONS = (
    (r"\b(?:in (?:the )?(?:place|lieu|exchange) of|rather than|as opposed to|instead of)\b", "instead"),
    (r"\bin (?:its|his|her|their|the [\w-]+'s) (?:place|stead)\b", "instead"),
    (r", not (?=(?:an?|the|in|on) )", " instead "),
    (r"\b(?:in|after) the (?:style|manner|spirit) of\b", "in-style"),
    (
        r"\b(?:should|must|ought to|has to|have to|needs? to|is to|are to|can|could|would|may) (?:be|become)\b",
        "be",
    ),
    (
        r"\b(?:has|have) (?:become|turned|been)\b|\b(?:is|are|was|were|becomes?|became|become)\b(?: now)?",
        "be",
    ),
    (r"\b(?:be )?to be\b|\btakes? place\b", "be"),
    (r"\b(?:would|should|could) look\b", "be"),
    (r"\b(?:has to|have to|needs to|must|should) (?:go$|disappear|vanish)|\bgo away\b", "be gone"),
    (
        r"\b(?:could|can) use\b|\b(?:needs|lacks)\b|\bbe missing (?=an?\b)|\b(?:would )?benefits? from\b",
        "have",
    ),
    (r"\brather (.+?) than\b", r"\1 instead"),
    (
        r"^(the [\w' ]+?) (?:should |must |could )?(?:changes?|changed|turns?|turned|transforms?) (?:to|into)\b",
        r"change \1 to",
    ),
    (r"\bwhere (?:it|s?he|they) be(?: \w+ing)?\b", "the location"),
    (r"\bsun (?:be )?(?:setting|sets?|rises?|rising)\b", "sky be sunset"),
    (r"\b(?:next|close) to\b", "beside"),
    (r"\b(?:in front|on top|in the middle) of\b", "at"),
    (r"\b(?:what|whatever) be (?=behind|around)", "all "),
    (r"\bincrease the number of\b", "add more"),
    (r"\b(?:reduce|decrease) the number of\b|^(?:only (?:keep|leave)|(?:keep|leave) only)\b", "remove"),
    (r"\bwhere (.+?) (?:be|stands?|sits?|hangs?|lies)$", r"instead \1"),
    (r"^how would (.+) look\b", r"make \1 look"),
    (r"\b(?:get rid of|do away with)\b|^rid\b", "remove"),
    (r"\b(?:throw|bring) in\b", "add"),
    (r"\bpaint out\b", "remove"),
    (r"^cut out (.+?) and (?:show|put|place|set) (?:it|him|her|them)\b", r"put \1"),
    (r"\b(?:swap|switch|trade) (?:out|places:)", "swap"),
    (r"^instead (.*?), (.*)|^instead ((?:an?|the|her|his) \w+) (.*)", r"\2\4 instead \1\3"),
    (
        r"^(?:remove|delete|erase|take(?: out| away| off)?) (.+?),? and "
        r"(?:replace (?:it|them|him|her) (?:with|by) (.+)|(?:put|place|add|insert|use|draw) (.+?)"
        r"(?: there(?: instead)?| instead| in (?:the|that) same (?:spot|place)))(?=$|[.,;])",
        r"replace \1 with \2\3",
    ),
    (r"^(?:not|no longer) (.+?),? but (.+)", r"\2 instead \1"),
    (r"^keep (?!only).*?(?:,| but| and) ", ""),
    (r"^from (.+?) to (.+?): (.+)", r"change \3 from \1 to \2"),
    (
        r"^(?:new )?(style|background|sky|color|season|weather|time|setting|scene|pose)(?:: |, )",
        r"change the \1 to ",
    ),
    (r"^(\w+): ", r"\1 "),
    (r"^(color|style|background|pose|motion) (?:change|transfer|swap):? ", r"change the \1 of "),
)
"""One word for one relation ("instead", "in-style", "be"), and elliptic forms written out."""
_ASKING = re.compile(
    r"""^(?:
      (?:[\w ]*\b(?:image|photo|picture|task|edit|request|instruction)|next|first):
    | in\ this\ (?:image|photo|picture),
    | (?:use|take|edit)\ this\ (?:image|photo|picture)\ and\b
    | (?:hey|hi|ok|okay|maybe|perhaps|only|just|now|also|then|next|and|but|so|simply)\b
    | (?:see|view|imagine|picture|show\ me|give\ me|get\ me|use|try|do(?=\ an?\b))\b
    | go\ (?:with|for|full|ahead\ and)\b
    | (?:(?:make\ sure|ensure)(?:\ that)?|let\ us)\b
    | (?:can|could|would|will|might|may)\ (?:you|we|i)\b(?:\ mind|\ see|\ get(?=\ an?\b))?
    | (?:be|would\ it\ be|it\ be|it\ would\ be)\ (?:it\ )?(?:possible|nice|great|good|lovely)\ (?:to|if)
    | (?:i|we)\ (?:would\ |really\ )*(?:like|love|want|need|prefer|wish)\ (?:to\ (?:see|have)?|it\ if|if|that|you\ to)
    | (?:i|we)\ (?:think|suppose|guess|suggest|believe)(?:\ that)?
    | what\ would\ (?:it|this|that)\ look\ like | (?:what|how)\ (?:if|about)
    | (?:i|we|you)\ (?:would|should|could|will)\b(?!\ (?:like|love|want|prefer|use))
    )[ ,]*""",
    re.VERBOSE,
)
_WANTING = re.compile(
    r"^(?:(?:i|we)\ (?:would\ |really\ )*(?:like|love|want|need|prefer|wish|see)|can|could|will|would|may)\ "
)
"""Wanting a thing to be so is making it so: "could the deer be a moose", "I want her to dance"."""


_KEEPING = re.compile(
    r"(?:keep|leave|preserve|maintain|match|do not|nothing|no other|the rest|everything else)\b"
)
"""A later clause that says what is not to change."""


def plain(text: str) -> str:
    """The request in lower case (names keep their capital), in one spelling, with one word for each relation."""
    text = " ".join(text.split()).strip(" .?!")
    named = re.sub(r"(?<=[\w,'] )[A-Z](?=[a-z])", lambda letter: "\0" + letter[0], text).lower()
    if (
        len(named.split()) > 3 and named.count("\0") >= len(named.split()) - 1
    ):  # a title: its capitals name nothing
        named = named.replace("\0", "")
    text = re.sub("\0(.)", lambda letter: letter[1].upper(), named)
    for pattern, replacement in _SPELLING:
        text = re.sub(pattern, replacement, text)
    text = _ask(text)
    for pattern, replacement in _RELATIONS:
        text = re.sub(pattern, replacement, text)
    return text


def clauses(text: str) -> list[Words]:
    """The clauses of plain text as words, slips corrected: cut at stops, and at commas and "and" before a verb."""
    verb = "|".join(sorted(VERBS))
    parts = re.split(
        rf"[.;:!?] |, |\band then\b|\band (?=(?:then |also )?(?:{verb})\b)|\bwhile\b"
        r"|\bso (?=th|it|we|s?he|her|his|both)",
        text,
    )
    asked = [
        part.strip() for index, part in enumerate(parts) if index == 0 or not _KEEPING.match(part.strip())
    ]
    return [words for part in asked if (words := _correct(re.findall(r"[\w'-]+", _ask(part))))]


def _ask(text: str) -> str:
    """The text without its politeness; a wish is turned into "make"."""
    while True:
        stripped = _ASKING.sub("", text, count=1)
        stripped = _WANTING.sub("make ", stripped, count=1)
        stripped = re.sub(r"^(he|she|it|they) (?:should|would|could|must|will) ", r"make \1 ", stripped)
        if stripped == text:
            return text
        text = stripped


def _correct(words: Words) -> Words:
    """Mends one slip a word in the words that carry an edit. Only a transposition is trusted anywhere, since other
    slips turn one good word into another ("crate", "create"); a first word is a verb, so there they are too."""
    return [_mend(word, first=index == 0) for index, word in enumerate(words)]


@lru_cache(maxsize=1 << 16)
def _mend(word: str, first: bool) -> str:
    if inflects(word, KNOWN) or not word.isalpha():
        return word
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]
    for candidate in swapped:
        if candidate == "the" or inflects(candidate, _MENDABLE):
            return candidate
    letters = "abcdefghijklmnopqrstuvwxyz"
    inserted = [word[:i] + letter + word[i:] for i in range(len(word) + 1) for letter in letters]
    deleted = [word[:i] + word[i + 1 :] for i in range(len(word))]
    for candidate in (*inserted, *deleted):
        if candidate in (VERBS if first else _LONG_NOUNS):
            return candidate
    return word


_LONG_NOUNS = {word for word in lexicon.BACKGROUND | lexicon.STYLE_NOUNS | lexicon.COLORS if len(word) > 5}
_MENDABLE = VERBS | lexicon.ACTIONS | _LONG_NOUNS | lexicon.COLORS
