"""ImgEdit-Bench (Basic): nine kinds of edits, scored by a vision-language judge from 1 to 5.

Paper: "ImgEdit: A Unified Image Editing Dataset and Benchmark" (Ye et al. 2025). Data: `basic_edit.json` and the images
it names, of sysuyy/ImgEdit. Prompts: the published JSON of one prompt per kind of edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from crispedit import prompts
from crispedit.benchmark import Answer, Benchmark, Better, Case, Picture, Protocol, Scored, read_json
from crispedit.chat import ChatError, Reply, Request
from crispedit.measures import Measures
from crispedit.record import content_key

METRICS: Mapping[str, Better] = {
    "compliance": "higher",
    "seamlessness": "higher",
    "fidelity": "higher",
    "mean": "higher",
}
OWN = "judge/imgedit"


class Marks(Reply):
    """Three marks, in the order in which the prompt asks for them."""

    reasoning: str
    scores: Annotated[list[Annotated[int, Field(ge=1, le=5)]], Field(min_length=3, max_length=3)]


class ImgEdit(Benchmark):
    """The mean of three marks per item, then per kind of edit; the mean over kinds is ours: no rule is published.

    The prompts name the marks by the kind of edit (the first is always compliance; the published prompts forbid the
    others to exceed it). Deviation: the answer is asked for as JSON, where the published script reads any line that
    ends in a digit. Without `prompts` we ask in words of our own, under an id of its own. An answer that cannot be read
    is None in all four.
    """

    path: Path
    """The folder with `basic_edit.json`."""
    images: Path | None = None
    """Where the images lie that it names; null: in `path`."""
    prompts: Path | None = None
    """The published JSON of prompts."""

    @property
    def _id(self) -> str:
        return "imgedit-basic" if self.prompts is not None else "imgedit-basic-own-prompts"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "a judge's three marks, 1-5, and their mean; the mean of the kinds' means"
        return {self._id: Protocol(about, METRICS, "mean", by_group=True, models={"judge": "gpt-4o"})}

    def cases(self) -> Sequence[Case]:
        listed = read_json(self.path / "basic_edit.json", "the items of ImgEdit-Bench's basic part")
        root = self.images or self.path
        found = []
        for key, item in listed.items():
            try:
                image, kind, instruction = item["id"], item["edit_type"], item["prompt"]
            except KeyError as error:
                raise ValueError(f"{self.path}/basic_edit.json: item {key} has no {error}") from None
            if not (root / image).resolve().is_relative_to(root.resolve()):
                raise ValueError(f"{self.path}/basic_edit.json: item {key}: {image!r} leaves the folder")
            found.append(
                Case(
                    id=key,
                    instruction=instruction,
                    source=Picture(str(root / image)),
                    group=kind,
                    protocols=(self._id,),
                )
            )
        if self.prompts is not None:
            known = self._published()
            if unknown := {case.group for case in found} - known.keys():
                raise ValueError(f"{self.prompts}: no prompt for edits of kind {sorted(unknown)[0]!r}")
        return found

    def score(self, answers: Sequence[Answer], measures: Measures) -> list[Scored | Exception]:
        if measures.judge is None:
            return [Scored({self._id: dict.fromkeys(METRICS)}) for _ in answers]
        asked = [
            Request(self._prompt(a.case), Marks, [a.source, a.edited], tell_schema=True) for a in answers
        ]
        return [self._scored(said) for said in measures.judge.ask(asked)]

    def _prompt(self, case: Case) -> str:
        if self.prompts is None:
            return prompts.render(OWN, instruction=case.instruction, kind=case.group)
        return self._published()[case.group].replace("<edit_prompt>", case.instruction)

    def _published(self) -> dict[str, str]:
        assert self.prompts is not None
        found = read_json(self.prompts, "the published prompts, one per kind of edit")
        return {str(kind): str(text) for kind, text in found.items()}

    def _scored(self, said: object) -> Scored | Exception:
        if isinstance(said, ChatError):
            if said.raw is None:
                return said  # the judge did not answer at all: to be asked again
            return Scored({self._id: dict.fromkeys(METRICS)}, unparsed=True, words=(said.raw,))
        marks: list[int] = said.value.scores  # type: ignore[attr-defined]
        values = dict(zip(METRICS, [*marks, sum(marks) / 3], strict=True))
        return Scored({self._id: values}, words=(said.raw,))  # type: ignore[attr-defined]

    def identity(self) -> dict[str, object]:
        found = super().identity()
        if self.prompts is None:
            return found | {"prompts": prompts.versions([OWN])}
        return found | {"prompts": content_key(self.prompts.read_bytes())}
