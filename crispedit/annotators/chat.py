"""The chat annotator: a vision-language model describes a photograph, writes instructions for it, and checks them.

The second stage of the paper's pipeline (arXiv 2605.10859): a dense caption that keeps background, objects and their
attributes apart; an instruction for each wanted category, in a voice and of a complexity drawn from the photograph's
key; rounds of self-refinement; and a check of every instruction against the photograph before anything is edited.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from crispedit import feasibility, prompts
from crispedit.category import Category, load_categories
from crispedit.chat import ChatAnswer, ChatError, ChatOption, ChatRequest, Reply, total
from crispedit.parts import Annotator
from crispedit.record import Job, Refusal, Sample, canonical_json, content_key, seed_of

PROMPTS = ("annotate/describe", "annotate/write", "annotate/refine", *feasibility.PROMPTS)


class Thing(Reply):
    name: str
    attributes: list[str]
    place: str


class Description(Reply):
    """A photograph in words."""

    background: str
    objects: list[Thing]
    caption: str


class Draft(Reply):
    """An instruction, and the caption of the picture that it leads to."""

    instruction: str
    target_caption: str


class Refinement(Reply):
    """A draft looked at again."""

    critique: str
    instruction: str
    target_caption: str


class ChatAnnotator(Annotator):
    """Writes jobs in any category that has a file; `plan["chat"]` holds the description, the drafts and the facts.

    Refuses an instruction that fails its check, with `crispedit.feasibility`'s word for it ("object_absent",
    "already_true", "contradictory", "ambiguous", "unsafe", "unsure"); "repeated" if the photograph has it already; and
    "no_words" if the model wrote none. The refused job is kept. A question without an answer is an error of its
    request.
    """

    chat: ChatOption
    """`{backend: transformers, model: ...}` or `{backend: openai, model: ..., base_url: ...}`: see `crispedit.chat`."""
    refinements: int = Field(1, ge=0, le=8)
    """How often the model revises its own draft."""
    own_categories: tuple[Category, ...] = ()
    """The recipe's own categories, filled in from its `categories.NAME.file`."""

    @property
    def gpus(self) -> float:  # type: ignore[override]  # a class variable elsewhere; here the backend's
        return self.chat.gpus

    def load(self) -> None:
        self.chat.load()

    def identity(self) -> dict[str, Any]:
        """The options, with the model and all its prompts, the categories' included."""
        identity = super().identity()
        identity["options"]["chat"] = self.chat.identity()
        del identity["options"]["own_categories"]  # their texts count, see below
        texts = {name: content_key(c.definition, c.prompt) for name, c in self._categories().items()}
        return identity | {"prompts": prompts.versions(PROMPTS), "categories": texts}

    def _categories(self) -> dict[str, Category]:
        return load_categories() | {category.name: category for category in self.own_categories}

    def annotate(
        self, samples: Sequence[Sample], requests: Sequence[Sequence[str]]
    ) -> list[list[Job | Refusal | Exception]]:
        known = self._categories()
        if strange := sorted({category for categories in requests for category in categories} - set(known)):
            raise ValueError(f"there is no category file for {', '.join(strange)}; choose from {', '.join(known)}")
        groups: list[list[_Wish]] = []
        for sample, categories in zip(samples, requests, strict=True):
            group: list[_Wish] = []
            for category in categories:
                same = [wish for wish in group if wish.category.name == category]
                group.append(_Wish(sample, known[category], same))
            groups.append(group)
        self._describe([group for group in groups if group])
        # A category's second job is written after its first, so that it can differ.
        wishes = [wish for group in groups for wish in group]
        for nth in range(1 + max((len(wish.before) for wish in wishes), default=-1)):
            self._write([wish for wish in wishes if len(wish.before) == nth])
        return [[wish.outcome() for wish in group] for group in groups]

    def _describe(self, photographs: Sequence[Sequence[_Wish]]) -> None:
        """Describe each photograph once, however many jobs are requested of it."""
        prompt = prompts.render("annotate/describe")
        asked = [ChatRequest(prompt, Description, [group[0].sample.source]) for group in photographs]
        for group, description in zip(photographs, self.chat.ask(asked), strict=True):
            for wish in group:
                wish.take("description", description, paid=wish is group[0])

    def _write(self, wishes: Sequence[_Wish]) -> None:
        rounds: list[tuple[str, Callable[[_Wish], ChatRequest[Any]]]] = [
            ("draft", _Wish.write),
            *[("draft", _Wish.refine)] * self.refinements,
            ("facts", _Wish.check),
        ]
        for name, question in rounds:
            alive = [wish for wish in wishes if wish.error is None]
            for wish, reply in zip(alive, self.chat.ask([question(w) for w in alive]), strict=True):
                wish.take(name, reply)


@dataclass
class _Wish:
    """One requested job in progress, with the answers so far."""

    sample: Sample
    category: Category
    before: Sequence[_Wish]
    """The photograph's earlier jobs in this category."""
    answers: dict[str, list[Any]] = field(default_factory=dict)
    """The answers: one "description", every "draft", the "facts"."""
    tokens: list[tuple[int, int] | None] = field(default_factory=list)
    """Tokens of each answer."""
    error: ChatError | None = None

    def take(self, name: str, answer: ChatAnswer[Any] | ChatError, paid: bool = True) -> None:
        if paid:
            self.tokens.append(None if isinstance(answer, ChatError) else answer.tokens)
        if isinstance(answer, ChatError):
            self.error = answer
        else:
            self.answers.setdefault(name, []).append(answer.value)

    @property
    def earlier(self) -> list[str]:
        """The instructions of the jobs before it."""
        return [wish.instruction for wish in self.before if wish.instruction]

    def write(self) -> ChatRequest[Draft]:
        seed = seed_of(self.sample.key, f"voice of {self.category.name} {len(self.before)}")
        more = {"task": self.category.prompt, "earlier": self.earlier, "seed": seed}
        return ChatRequest(self._prompt("annotate/write", **more), Draft, [self.sample.source])

    def refine(self) -> ChatRequest[Refinement]:
        caption = _one_line(self.answers["draft"][-1].target_caption)
        more = {"instruction": self.instruction, "target_caption": caption}
        return ChatRequest(self._prompt("annotate/refine", **more), Refinement, [self.sample.source])

    def check(self) -> ChatRequest[feasibility.Feasibility]:
        return feasibility.question(self.sample.source, self.instruction, self.category.name)

    def outcome(self) -> Job | Refusal | Exception:
        if self.error is not None:
            return self.error
        description, draft, facts = (self.answers[name][-1] for name in ("description", "draft", "facts"))
        plan = {name: [answer.model_dump() for answer in answers] for name, answers in self.answers.items()}
        texts = self.instruction, _one_line(description.caption), _one_line(draft.target_caption)
        job = Job(self.sample.key, self.category.name, *texts, plan={"chat": plan}, tokens=total(self.tokens))
        if not self.instruction:
            return Refusal("no_words", job)
        if self.instruction.casefold() in map(str.casefold, self.earlier):
            return Refusal("repeated", job)
        problem = feasibility.problem(facts)
        return job if problem is None else Refusal(problem, job)

    @property
    def instruction(self) -> str:
        """The current instruction; empty before the first draft."""
        return _one_line(self.answers["draft"][-1].instruction) if "draft" in self.answers else ""

    def _prompt(self, name: str, **more: object) -> str:
        description = canonical_json(self.answers["description"][-1].model_dump())
        about = {"category": self.category.name, "definition": self.category.definition}
        return prompts.render(name, description=description, **about, **more)


def _one_line(text: str) -> str:
    return " ".join(text.split())
