"""GEdit-Bench: users' real edit requests in eleven groups, scored by a vision-language judge (VIEScore).

Paper: "Step1X-Edit: A Practical Framework for General Image Editing" (Liu et al. 2025); VIEScore: Ku et al. 2024. Data:
parquet or arrow files of stepfun-ai/GEdit-Bench. Prompts: `vie_prompts.py` of the published evaluation, which is read
as data, never run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image as Pillow
from pydantic import Field, model_validator

from crispedit import metrics, prompts, replies
from crispedit.benchmark import Answer, Better, Case, JudgedBenchmark, Picture, Protocol, rows, text_constants
from crispedit.chat import Chat, Published, Reply
from crispedit.judge import Question
from crispedit.record import Image, Score

COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
METRICS: Mapping[str, Better] = dict.fromkeys(("SC", "PQ", "O", "balance"), "higher")
PIECES = {
    "semantics": ("_context_no_delimit", "_prompts_0shot_two_image_edit_rule", "_prompts_0shot_tie_rule_SC"),
    "quality": ("_context_no_delimit", "_prompts_0shot_rule_PQ"),
}
"""The published prompts' pieces, which are joined by line breaks."""
AS_PUBLISHED = Published("jpeg-75", max_tokens=1400)
"""VIEScore's client: no temperature, 1,400 tokens, Pillow's default JPEG, the text before the images."""
EDITMGT_SIDE_PX = 512


class Marks(Reply):
    """What VIEScore's prompts ask for."""

    reasoning: str
    score: Annotated[list[Annotated[float, Field(ge=0, le=10)]], Field(min_length=2, max_length=2)]


class GEdit(JudgedBenchmark):
    """SC = min(success, over-editing), PQ = min(naturalness, artefacts), O = sqrt(SC PQ) per item, each 0-10; the mean
    of a group, then the unweighted mean of the groups. `-intersection`: only items that every published model answered.

    `gedit-official` asks as the published script does: the text, then the source and the answer at the source's size,
    as JPEG of quality 75, no temperature, at most 1,400 tokens, no schema. `gedit-editmgt-official` does so with the
    raw source and the answer each at about 512 x 512 pixels' area, as EditMGT's authors do. `gedit` and `gedit-editmgt`
    show the same images before the text, with the judge's own settings (temperature 0 by default) and a schema. Without
    `prompts`, our own prompts are used, under another id: those numbers are not comparable.

    `balance` is GPT-Bal of VAREdit's authors: the harmonic mean of success and over-editing, 0 if either is 0; None if
    a judge gives one mark for both. If a reply cannot be read, all four are None; the published script draws random
    marks.
    """

    questions: ClassVar[float] = 2.0
    own_prompts: ClassVar[tuple[str, ...]] = ("judge/gedit-semantics", "judge/gedit-quality")

    path: Path
    """The folder of the data files."""
    prompts: Path | None = None
    """The published `vie_prompts.py`."""
    protocol: Literal["gedit", "gedit-official", "gedit-editmgt", "gedit-editmgt-official"] = "gedit"
    language: Literal["en", "cn"] = "en"

    @model_validator(mode="after")
    def _official_prompts(self) -> GEdit:
        if self._official and self.prompts is None:
            raise ValueError(f"{self.protocol} asks with the published prompts: name prompts=vie_prompts.py")
        return self

    @property
    def _official(self) -> bool:
        return self.protocol.endswith("-official")

    @property
    def _id(self) -> str:
        name = self.protocol if self.prompts is not None else f"{self.protocol}-own-prompts"
        return name if self.language == "en" else f"{name}-{self.language}"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        every = Protocol(
            "a judge's marks, 0-10; the mean of the groups' means",
            METRICS,
            "O",
            by_group=True,
            models={"judge": "gpt-4.1"},
            published_as=f"{self.protocol.removesuffix('-official')}-official",
            perfect_by_copying=frozenset(METRICS),
        )
        some = replace(every, about=f"{every.about}; items that every published model answered")
        return {self._id: every, f"{self._id}-intersection": some}

    def cases(self) -> Sequence[Case]:
        files = sorted(p for suffix in ("parquet", "arrow") for p in self.path.rglob(f"*.{suffix}"))
        if not files:
            raise ValueError(f"{self.path}: no .parquet or .arrow files of stepfun-ai/GEdit-Bench")
        return [
            Case(
                id=f"{row['task_type']}/{self.language}/{row['key']}",
                instruction=row["instruction"],
                source=Picture(str(file), row=number, column="input_image"),
                group=row["task_type"],
                protocols=(self._id, f"{self._id}-intersection") if row["Intersection_exist"] else (self._id,),
            )
            for file, number, row in rows(files, COLUMNS)
            if row["instruction_language"] == self.language
        ]

    def questions_on(self, answer: Answer) -> Sequence[Question[list[float]]]:
        before, after = self._shown(answer)
        asked = zip(self._prompts(answer.case.instruction), ([before, after], [after]), strict=True)
        if self._official:
            return [
                Question([text, *shown], replies.viescore, AS_PUBLISHED, repeat=answer.repeat) for text, shown in asked
            ]
        options: dict[str, Any] = {"shape": Marks, "tell_shape": self.prompts is None, "repeat": answer.repeat}
        return [Question([*shown, text], replies.viescore, **options) for text, shown in asked]

    def _prompts(self, instruction: str) -> list[str]:
        """The texts on semantics and on quality."""
        if self.prompts is None:
            return [prompts.render(name, instruction=instruction) for name in self.own_prompts]
        return [text.replace("<instruction>", instruction) for text in self.published()]

    def _shown(self, answer: Answer) -> tuple[Image, Image]:
        if "editmgt" not in self.protocol:
            return answer.source, metrics.resized(answer.edited, answer.source)
        place = answer.case.source
        assert place is not None
        raw = Picture(place.path, row=place.row, column="input_image_raw").image()
        return _of_area(raw), _of_area(answer.edited)

    def request(self, chat: Chat) -> Mapping[str, Any]:
        if self._official:
            return self.asked(chat, AS_PUBLISHED, "text, source, answer", "none")
        return self.asked(chat, None, "source, answer, text", "two marks, 0-10")

    def published(self) -> list[str]:
        """The prompts on semantics and on quality."""
        assert self.prompts is not None
        texts = text_constants(self.prompts, "the published vie_prompts.py")
        try:
            return ["\n".join(texts[name] for name in names) for names in PIECES.values()]
        except KeyError as error:
            raise ValueError(f"prompts: {self.prompts} is not the published vie_prompts.py: no {error}") from None

    def marks(self, case: Case, values: Sequence[list[float] | None]) -> dict[str, Score]:
        return marks(*values)


def marks(success: Sequence[float] | None, look: Sequence[float] | None) -> dict[str, Score]:
    """The four metrics from the marks on semantics (success, over-editing) and on quality."""
    if success is None or look is None:
        return dict.fromkeys(METRICS)
    sc, pq = min(success), min(look)
    balance = None
    if len(success) == 2:
        balance = 2 * success[0] * success[1] / sum(success) if sc else 0.0
    return {"SC": sc, "PQ": pq, "O": math.sqrt(sc * pq), "balance": balance}


def _of_area(image: Image) -> Image:
    height, width = image.shape[:2]
    ratio = width / height
    wide = math.sqrt(EDITMGT_SIDE_PX**2 * ratio)
    return np.asarray(Pillow.fromarray(image).resize((int(wide), int(wide / ratio))))
