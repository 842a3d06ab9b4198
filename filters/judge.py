"""Judge: what a vision-language model sees in a pair, asked in two ways.

(a) Facts, then code. The model says what is in the source, what in the edited image, and what differs, without knowing
the instruction; then whether the instruction can be carried out on the source, and which of the differences it asks
for. Code derives the verdicts. Models tend to answer yes to "is this a good edit?": sam3-crispedit reports that of
250,421 rows of CrispEdit-2M one such question kept 86 %, and facts kept 27 %. (b) A rubric, 0 to 10 as in VIEScore (Ku
et al., 2024): how well the edit follows, and how clean the picture is.

Its model can also choose among candidates: `compare` shows it those of one job side by side.

A fact that the model is unsure of makes a verdict unknown (null), and `unsure` counts those. By default no unsure pair
passes; a bound on `unsure` can change that. `crispedit calibrate` with labels measures how good the scores are on your
data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from crispedit import feasibility, prompts
from crispedit.chat import Chat, ChatAnswer, ChatError, ChatOption, ChatRequest, Reply, total
from crispedit.feasibility import Fact, Feasibility
from crispedit.parts import Bound, Filter, Image, Sample, Score
from crispedit.record import canonical_json

COMPARE = "judge/compare"
QUESTIONS = ("judge/look", "judge/differences", "judge/match", "judge/follows", "judge/quality")
VERDICTS = (
    "instruction_actionable",
    "change_happened",
    "matches_instruction",
    "subject_kept",
    "composition_kept",
    "rest_preserved",
)
RUBRIC = ("instruction_following", "over_editing", "naturalness", "artefacts")

TOKENS = ("input_tokens", "output_tokens")

Questions = dict[str, ChatRequest[Any]]
Answers = dict[str, ChatAnswer[Any]]


class Look(Reply):
    """What one picture shows."""

    main_subject: str
    other_things: list[str]
    setting: str
    medium: str = Field(description="Such as photograph, oil painting, pencil drawing")


class Difference(Reply):
    what: str = Field(description="What differs and where, in one sentence")
    kind: Literal[
        "appeared", "disappeared", "replaced", "color", "background", "style", "moved", "viewpoint", "quality", "other"
    ]
    main_subject: Fact = Field(description="Does it concern the main subject of the first picture?")


class Differences(Reply):
    """What differs between two pictures."""

    differences: list[Difference]
    same_subject: Fact
    same_composition: Fact


class AskedFor(Reply):
    difference: int = Field(description="Its number in the list")
    asked_for: Fact


class Match(Reply):
    """Which differences an instruction asks for."""

    differences: list[AskedFor]
    fulfilled: Fact


class Follows(Reply):
    instruction_following: int = Field(ge=0, le=10)
    over_editing: int = Field(ge=0, le=10)


class Quality(Reply):
    naturalness: int = Field(ge=0, le=10)
    artefacts: int = Field(ge=0, le=10)


class Best(Reply):
    candidate: int = Field(ge=0, description="The number of the best candidate, or 0 if you are not sure")


@dataclass(frozen=True)
class Contest:
    """Candidates of one job, all made from this source."""

    source: Image
    instruction: str
    candidates: Sequence[Image]


@dataclass(frozen=True)
class PreferredCandidate:
    """Which candidate a model prefers."""

    candidate: int | None
    """Its index; None if the model named none, or different ones in the two orders: models have a position bias."""
    answers: str
    """The model's replies in both orders, as JSON."""
    tokens: tuple[int, int] | None = None
    """The model's (input, output) tokens."""


class Judge(Filter):
    """The verdicts are 1 (true), 0 (false) or null (unsure); the rubric's scores 0 to 10, where 10 is best.

    - `instruction_actionable`: the instruction fits the source (`crispedit.feasibility`).
    - `change_happened`: there is a visible difference, other than of quality.
    - `matches_instruction`: the differences include everything that was asked for.
    - `subject_kept`, `composition_kept`: the same main subject, the same arrangement, unless the instruction asks for
      another.
    - `rest_preserved`: every difference was asked for, or follows from what was.
    - `unsure`: how many of these are null.
    - `input_tokens`, `output_tokens`: the model's tokens; null if its server does not count.
    - `no_model`: 1 if no chat model is configured; every other score is then null. Else 0.

    `answers` has the model's replies. A question without an answer is the pair's error. Scores of a part that is turned
    off are null.
    """

    chat: ChatOption | None = None
    """`{backend: transformers, model: ...}` or `{backend: openai, model: ..., base_url: ...}`: see `crispedit.chat`."""
    facts: bool = True
    rubric: bool = True

    scores = dict.fromkeys((*VERDICTS, "unsure", *RUBRIC, *TOKENS, "no_model"), int)
    notes = ("answers",)
    bounds = {**dict.fromkeys(VERDICTS, Bound(min=1)), "unsure": Bound(max=0)}
    # sam3-crispedit reports 0.15 rows a second on an H100, of an 8B model that was asked for facts.
    cost = 6700.0

    @property
    def gpus(self) -> float:  # type: ignore[override]  # a class variable elsewhere; here the backend's
        return self.chat.gpus if self.chat is not None else 0.0

    def lacks(self) -> str | None:
        return None if self.chat is not None else "no model is named: set its `chat`"

    def load(self) -> None:
        if self.chat is not None:
            self.chat.load()

    def identity(self) -> dict[str, Any]:
        identity = super().identity()
        identity["options"]["chat"] = None if self.chat is None else self.chat.identity()
        return identity | {"prompts": prompts.versions((*QUESTIONS, *feasibility.PROMPTS))}

    def measure(self, samples: Sequence[Sample]) -> list[dict[str, Score | str] | Exception]:
        if self.chat is None:
            return [dict.fromkeys(self.scores) | {"no_model": 1} for _ in samples]
        answers = _ask(self.chat, [self._questions(sample) for sample in samples])
        if self.facts:
            matches = [{} if isinstance(a, Exception) else _match(s, a) for s, a in zip(samples, answers, strict=True)]
            second = _ask(self.chat, matches)
            answers = [
                a if isinstance(a, Exception) else m if isinstance(m, Exception) else a | m
                for a, m in zip(answers, second, strict=True)
            ]
        return [answer if isinstance(answer, Exception) else _scores(answer) for answer in answers]

    def compare(self, contests: Sequence[Contest]) -> list[PreferredCandidate | Exception]:
        """The best candidate of each contest, by a model that sees the source and all candidates in both orders; or an
        error."""
        assert self.chat is not None
        asked = []
        for contest in contests:
            prompt = prompts.render(COMPARE, instruction=contest.instruction, candidates=len(contest.candidates))
            orders = {"in_order": contest.candidates, "in_reverse": contest.candidates[::-1]}
            asked.append({name: ChatRequest(prompt, Best, [contest.source, *order]) for name, order in orders.items()})
        return [
            answer if isinstance(answer, Exception) else _choice(len(contest.candidates), answer)
            for contest, answer in zip(contests, _ask(self.chat, asked), strict=True)
        ]

    def comparison(self) -> dict[str, Any]:
        """What determines `compare`'s answers: the model and the prompt, JSON-ready."""
        assert self.chat is not None
        return {"chat": self.chat.identity(), "prompts": prompts.versions([COMPARE])}

    def _questions(self, sample: Sample) -> Questions:
        """The questions about a pair that are asked together, each with only what it needs."""
        if not sample.instruction:
            raise ValueError("a pair without an instruction cannot be judged")
        questions: Questions = {}
        if self.facts:
            look, differ = prompts.render("judge/look"), prompts.render("judge/differences")
            questions["source"] = ChatRequest(look, Look, [sample.source])
            questions["edited"] = ChatRequest(look, Look, [sample.edited])
            questions["differences"] = ChatRequest(differ, Differences, [sample.source, sample.edited])
            questions["feasibility"] = feasibility.question(sample.source, sample.instruction, sample.category)
        if self.rubric:
            follows = prompts.render("judge/follows", instruction=sample.instruction)
            questions["follows"] = ChatRequest(follows, Follows, [sample.source, sample.edited])
            questions["quality"] = ChatRequest(prompts.render("judge/quality"), Quality, [sample.edited])
        return questions


def verdicts(feasible: Feasibility, seen: Differences, match: Match) -> dict[str, Fact]:
    """The six verdicts that follow from the facts."""
    asked = {entry.difference: entry.asked_for for entry in match.differences}
    visible = [(d, asked.get(n, "unsure")) for n, d in enumerate(seen.differences, 1) if d.kind != "quality"]
    asked_for = [wanted for _, wanted in visible]
    done = [difference for difference, wanted in visible if wanted == "yes"]
    problem = feasibility.problem(feasible)
    actionable: Fact = "yes" if problem is None else "unsure" if problem == feasibility.UNSURE else "no"
    fulfilled: Fact = "unsure" if match.fulfilled == "yes" and not done else match.fulfilled
    # Changes that the instruction asks for do not count as losses.
    taken = any(d.main_subject == "yes" and d.kind in ("disappeared", "replaced") for d in done)
    moved = any(d.kind in ("moved", "viewpoint") for d in done)
    return {
        "instruction_actionable": actionable,
        "change_happened": "yes" if visible else "unsure" if seen.differences else "no",
        "matches_instruction": fulfilled if visible else "no",
        "subject_kept": "yes" if taken else seen.same_subject,
        "composition_kept": "yes" if moved else seen.same_composition,
        "rest_preserved": "no" if "no" in asked_for else "unsure" if "unsure" in asked_for else "yes",
    }


def _ask(model: Chat, asked: Sequence[Questions]) -> list[Answers | Exception]:
    """The answers to every sample's questions, asked together; a sample's first error is its result."""
    flat = iter(model.ask([request for questions in asked for request in questions.values()]))
    results: list[Answers | Exception] = []
    for questions in asked:
        answers: Answers = {}
        failure = None
        for name in questions:
            answer = next(flat)
            if isinstance(answer, ChatAnswer):
                answers[name] = answer
            elif failure is None:
                failure = ChatError(f"{name}: {answer}", answer.raw)
                failure.__cause__ = answer
        results.append(failure or answers)
    return results


def _choice(candidates: int, answers: Answers) -> PreferredCandidate | ChatError:
    for answer in answers.values():
        if answer.value.candidate > candidates:
            return ChatError(f"it chose candidate {answer.value.candidate} of {candidates}: {answer.raw!r}", answer.raw)
    first, last = (answers[order].value.candidate for order in ("in_order", "in_reverse"))
    agreed = first + last == candidates + 1  # the same candidate in both orders; never if one is 0
    return PreferredCandidate(first - 1 if agreed else None, _words(answers), _tokens(answers))


def _match(sample: Sample, answers: Answers) -> Questions:
    """The text-only question: which differences the instruction asks for."""
    before, after = (canonical_json(answers[name].value.model_dump()) for name in ("source", "edited"))
    seen = [difference.what for difference in answers["differences"].value.differences]
    asked = {"instruction": sample.instruction, "before": before, "after": after, "differences": seen}
    prompt = prompts.render("judge/match", **asked)
    return {"match": ChatRequest(prompt, Match)}


def _scores(answers: Answers) -> dict[str, Score | str]:
    scores: dict[str, Score | str] = dict.fromkeys(Judge.scores)
    if "match" in answers:
        derived = verdicts(*(answers[name].value for name in ("feasibility", "differences", "match")))
        scores |= {name: {"yes": 1, "no": 0, "unsure": None}[fact] for name, fact in derived.items()}
        scores["unsure"] = sum(fact == "unsure" for fact in derived.values())
    for name in ("follows", "quality"):
        if name in answers:
            scores |= answers[name].value.model_dump()
    scores |= zip(TOKENS, _tokens(answers) or (None, None), strict=True)
    return scores | {"no_model": 0, "answers": _words(answers)}


def _words(answers: Answers) -> str:
    """The model's replies by question, as JSON."""
    return canonical_json({name: answer.raw for name, answer in answers.items()})


def _tokens(answers: Answers) -> tuple[int, int] | None:
    return total(answer.tokens for answer in answers.values())
