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

from crispedit import judge, prompts, replies
from crispedit.benchmark import Answer, Benchmark, Better, Case, Protocol, Scored, picture_in, read_json
from crispedit.chat import Chat, ChatError, Published, Reply
from crispedit.judge import JudgeReply, Question
from crispedit.measures import Measures
from crispedit.record import content_key

METRICS: Mapping[str, Better] = {"first": "higher", "second": "higher", "third": "higher", "mean": "higher"}
OWN = "judge/imgedit"
OWN_NAMES = ("Compliance", "Seamlessness", "Fidelity")
AS_PUBLISHED = Published("png")
"""The published script's client: neither a temperature nor a limit of tokens, the text before the images."""


class Marks(Reply):
    """Three marks, in the order in which our own prompt asks for them."""

    reasoning: str
    scores: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=3, max_length=3)]


class ImgEdit(Benchmark):
    """The mean of three marks per item, then per kind of edit; the mean over kinds is ours: no rule is published.

    The prompts name the three marks by the kind of edit (the published prompts forbid the second and third to exceed
    the first), and so do our tables by kind. `imgedit-basic-official` asks and counts as the published script does: the
    mean, to two decimals, of every line that ends in a number. `imgedit-basic` asks with the same prompts, the images
    before the text and the judge's own settings, and takes exactly the three named marks of 1 to 5. Without `prompts`,
    our own prompts are used, under another id. A reply that cannot be read is None in all four.
    """

    questions: ClassVar[float] = 1.0

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
        return {
            self._id: Protocol(
                about,
                METRICS,
                "mean",
                by_group=True,
                models={"judge": "gpt-4o"},
                published_as="imgedit-basic-official",
                perfect_by_copying=frozenset(METRICS),
                labels=labels,
            )
        }

    def cases(self) -> Sequence[Case]:
        listed = read_json(self.path / "basic_edit.json", "the items of ImgEdit-Bench's basic part")
        root = self.images or self.path
        cases = []
        for key, item in listed.items():
            try:
                image, kind, instruction = item["id"], item["edit_type"], item["prompt"]
            except KeyError as error:
                raise ValueError(f"{self.path}/basic_edit.json: item {key} has no {error}") from None
            picture = picture_in(root, image, f"{self.path}/basic_edit.json: item {key}")
            cases.append(Case(key, instruction, picture, kind, protocols=(self._id,)))
        if self.prompts is not None:
            known = self._published()
            if unknown := {case.group for case in cases} - known.keys():
                raise ValueError(f"{self.prompts}: no prompt for edits of kind {sorted(unknown)[0]!r}")
        return cases

    def score(self, answers: Sequence[Answer], measures: Measures) -> list[Scored | Exception]:
        if measures.judge is None:
            return [Scored({self._id: dict.fromkeys(METRICS)}) for _ in answers]
        return [self.scored(reply) for reply in measures.judge.ask([self._question(a) for a in answers])]

    def _question(self, answer: Answer) -> Question[list[int]]:
        text, shown = self._prompt(answer.case), [answer.source, answer.edited]
        if self._official:
            return Question([text, *shown], replies.published_lines, AS_PUBLISHED, repeat=answer.repeat)
        read = partial(replies.lines, names=self._names(answer.case.group))
        shape = Marks if self.prompts is None else None  # the published prompts ask for lines
        return Question([*shown, text], read, shape=shape, repeat=answer.repeat)

    def _prompt(self, case: Case) -> str:
        if self.prompts is None:
            return prompts.render(OWN, instruction=case.instruction, kind=case.group)
        return self._published()[case.group].replace("<edit_prompt>", case.instruction)

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

    def scored(self, reply: object) -> Scored | Exception:
        if isinstance(reply, ChatError):
            return reply  # no reply: the judge will be asked again
        assert isinstance(reply, JudgeReply)
        values: dict[str, float | None] = dict.fromkeys(METRICS)
        if reply.value is not None:
            mean = sum(reply.value) / len(reply.value)
            values["mean"] = round(mean, 2) if self._official else mean
            if len(reply.value) == 3:
                values |= dict(zip(METRICS, reply.value, strict=False))
        return Scored({self._id: values}, unparsed=reply.value is None, words=(reply.text,), usage=reply.usage)

    def request(self, chat: Chat) -> Mapping[str, Any]:
        return judge.settings(AS_PUBLISHED if self._official else None, chat) | {
            "order": "text, source, answer" if self._official else "source, answer, text",
            "schema": "three marks, 1-5" if self.prompts is None else "none",
            "prompts": "our own" if self.prompts is None else "published",
        }

    def identity(self) -> dict[str, object]:
        identity = super().identity()
        if self.prompts is None:
            return identity | {"prompts": prompts.versions([OWN])}
        return identity | {"prompts": content_key(self.prompts.read_bytes())}
