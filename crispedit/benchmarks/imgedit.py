"""ImgEdit-Bench (Basic): nine kinds of edits, scored by a vision-language judge from 1 to 5.

Paper: "ImgEdit: A Unified Image Editing Dataset and Benchmark" (Ye et al. 2025). Data: `basic_edit.json` and the images
it names, of sysuyy/ImgEdit. Prompts: the published JSON of one prompt per kind of edit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from crispedit import prompts, replies
from crispedit.benchmark import Answer, Better, Case, JudgedBenchmark, Protocol, fields, picture_in, read_json
from crispedit.chat import Chat, Published, Reply
from crispedit.judge import Question
from crispedit.record import Score, content_key

METRICS: Mapping[str, Better] = dict.fromkeys(("first", "second", "third", "mean"), "higher")
OWN_NAMES = ("Compliance", "Seamlessness", "Fidelity")
AS_PUBLISHED = Published("png")
"""The published script's client: neither a temperature nor a limit of tokens, the text before the images."""


class Marks(Reply):
    """Three marks, in the order in which our own prompt asks for them."""

    reasoning: str
    scores: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=3, max_length=3)]


class ImgEdit(JudgedBenchmark):
    """The mean of three marks per item, then per kind of edit; the mean over kinds is ours: no rule is published.

    The prompts name the three marks by the kind of edit (the published prompts forbid the second and third to exceed
    the first), and so do our tables by kind. `imgedit-basic-official` asks and counts as the published script does: the
    mean, to two decimals, of every line that ends in a number. `imgedit-basic` asks with the same prompts, the images
    before the text and the judge's own settings, and takes exactly the three named marks of 1 to 5. Without `prompts`,
    our own prompts are used, under another id. A reply that cannot be read is None in all four.
    """

    questions: ClassVar[float] = 1.0
    own_prompts: ClassVar[tuple[str, ...]] = ("judge/imgedit",)

    path: Path
    """The folder with `basic_edit.json`."""
    images: Path | None = None
    """The folder of its images; null: `path`."""
    prompts: Path | None = None
    """The published JSON of prompts."""
    protocol: Literal["imgedit-basic", "imgedit-basic-official"] = "imgedit-basic"

    @model_validator(mode="after")
    def _official_prompts(self) -> ImgEdit:
        if self._official and self.prompts is None:
            raise ValueError(f"{self.protocol} asks with the published prompts: name prompts=prompts.json")
        return self

    @property
    def _official(self) -> bool:
        return self.protocol.endswith("-official")

    @property
    def _id(self) -> str:
        return self.protocol if self.prompts is not None else f"{self.protocol}-own-prompts"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "a judge's three marks, 1-5, and their mean; the mean of the kinds' means"
        kinds = {} if self.prompts is None else self._published()
        labels = {kind: dict(zip(METRICS, [*self._names(kind), "mean"], strict=True)) for kind in kinds}
        protocol = Protocol(
            about,
            METRICS,
            "mean",
            by_group=True,
            models={"judge": "gpt-4o"},
            published_as="imgedit-basic-official",
            perfect_by_copying=frozenset(METRICS),
            labels=labels,
        )
        return {self._id: protocol}

    def cases(self) -> Sequence[Case]:
        listed = read_json(self.path / "basic_edit.json", "the items of ImgEdit-Bench's basic part")
        root = self.images or self.path
        cases = []
        for key, item in listed.items():
            where = f"{self.path}/basic_edit.json: item {key}"
            image, kind, instruction = fields(item, ("id", "edit_type", "prompt"), where)
            cases.append(Case(key, instruction, picture_in(root, image, where), kind, protocols=(self._id,)))
        if self.prompts is not None:
            if unknown := {case.group for case in cases} - self._published().keys():
                raise ValueError(f"{self.prompts}: no prompt for edits of kind {sorted(unknown)[0]!r}")
        return cases

    def questions_on(self, answer: Answer) -> Sequence[Question[list[int]]]:
        case, shown = answer.case, [answer.source, answer.edited]
        shape = None
        if self.prompts is None:
            text = prompts.render(self.own_prompts[0], instruction=case.instruction, kind=case.group)
            shape = Marks  # the published prompts ask for lines
        else:
            text = self._published()[case.group].replace("<edit_prompt>", case.instruction)
        if self._official:
            return [Question([text, *shown], replies.published_lines, AS_PUBLISHED, repeat=answer.repeat)]
        read = partial(replies.lines, names=self._names(case.group))
        return [Question([*shown, text], read, shape=shape, repeat=answer.repeat)]

    def _names(self, kind: str) -> Sequence[str]:
        """The three marks as this kind's prompt calls them. ValueError if it does not name three."""
        if self.prompts is None:
            return OWN_NAMES
        names = re.findall(r"(?m)^[ \t]*(.+?): A number from 1 to 5", self._published()[kind])
        if len(names) != 3:
            raise ValueError(f"{self.prompts}: the prompt for {kind!r} does not name three marks from 1 to 5")
        return names

    def _published(self) -> dict[str, str]:
        assert self.prompts is not None
        prompts = read_json(self.prompts, "the published prompts, one per kind of edit")
        return {str(kind): str(text) for kind, text in prompts.items()}

    def marks(self, case: Case, values: Sequence[list[int] | None]) -> dict[str, Score]:
        (marks,) = values
        if marks is None:
            return dict.fromkeys(METRICS)
        mean = sum(marks) / len(marks)
        named = marks if len(marks) == 3 else [None] * 3
        return dict(zip(METRICS, [*named, round(mean, 2) if self._official else mean], strict=True))

    def request(self, chat: Chat) -> Mapping[str, Any]:
        if self._official:
            return self.asked(chat, AS_PUBLISHED, "text, source, answer", "none")
        return self.asked(chat, None, "source, answer, text", "three marks, 1-5" if self.prompts is None else "none")

    def published(self) -> str:
        assert self.prompts is not None
        return content_key(self.prompts.read_bytes())
