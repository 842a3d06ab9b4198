"""GEdit-Bench: edits that users really asked for, in eleven groups, scored by a vision-language judge (VIEScore).

Paper: "Step1X-Edit: A Practical Framework for General Image Editing" (Liu et al. 2025); VIEScore: Ku et al. 2024.
Data: parquet or arrow files of stepfun-ai/GEdit-Bench. Prompts: `vie_prompts.py` of the published evaluation, which is
read as data, never run.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image as Pillow
from pydantic import Field

from crispedit import metrics, prompts
from crispedit.benchmark import Answer, Benchmark, Better, Case, Picture, Protocol, Scored, rows
from crispedit.chat import ChatError, Reply, Request
from crispedit.measures import Measures
from crispedit.record import Image

COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
METRICS: Mapping[str, Better] = {"SC": "higher", "PQ": "higher", "O": "higher", "balance": "higher"}
PUBLISHED = {
    "semantics": (
        "_context_no_delimit",
        "_prompts_0shot_two_image_edit_rule",
        "_prompts_0shot_tie_rule_SC",
    ),
    "quality": ("_context_no_delimit", "_prompts_0shot_rule_PQ"),
}
"""The published prompts' pieces, which are joined by line breaks."""
OWN = ("judge/gedit-semantics", "judge/gedit-quality")
EDITMGT_SIDE_PX = 512


class Marks(Reply):
    """What VIEScore's prompts ask for."""

    reasoning: str
    score: Annotated[list[Annotated[float, Field(ge=0, le=10)]], Field(min_length=2, max_length=2)]


class GEdit(Benchmark):
    """SC = min(success, over-editing), PQ = min(naturalness, artefacts), O = sqrt(SC PQ) per item, each 0-10; the mean
    of a group, then the unweighted mean of the groups. `-intersection`: only items that every published model answered.

    `gedit-upstream` shows the judge the source and the answer at the source's size; `gedit-editmgt` the raw source and
    the answer, each at about 512 x 512 pixels' area. Without `prompts` we ask in words of our own, under an id of its
    own: those numbers are not comparable. `balance` is GPT-Bal of VAREdit's authors: the harmonic mean of success and
    over-editing, 0 if either is. Where the judge's answer cannot be read, all four are None.
    """

    path: Path
    """The folder of the data files."""
    prompts: Path | None = None
    """The published `vie_prompts.py`."""
    protocol: Literal["gedit-upstream", "gedit-editmgt"] = "gedit-upstream"
    language: Literal["en", "cn"] = "en"

    @property
    def _id(self) -> str:
        name = self.protocol if self.prompts is not None else f"{self.protocol}-own-prompts"
        return name if self.language == "en" else f"{name}-{self.language}"

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        about = "a judge's marks, 0-10; the mean of the groups' means"
        judge = {"judge": "gpt-4.1"}
        return {
            self._id: Protocol(about, METRICS, "O", by_group=True, models=judge),
            f"{self._id}-intersection": Protocol(
                f"{about}; items that every published model answered",
                METRICS,
                "O",
                by_group=True,
                models=judge,
            ),
        }

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
                protocols=(self._id, f"{self._id}-intersection")
                if row["Intersection_exist"]
                else (self._id,),
            )
            for file, number, row in rows(files, COLUMNS)
            if row["instruction_language"] == self.language
        ]

    def score(self, answers: Sequence[Answer], measures: Measures) -> list[Scored | Exception]:
        if measures.judge is None:
            none = dict.fromkeys(METRICS)
            return [Scored(dict.fromkeys(answer.case.protocols, none)) for answer in answers]
        asked = [request for answer in answers for request in self._requests(answer)]
        said = measures.judge.ask(asked)
        return [_scored(answer.case, *said[2 * n : 2 * n + 2]) for n, answer in enumerate(answers)]

    def _requests(self, answer: Answer) -> list[Request[Marks]]:
        semantics, quality = self._prompts(answer.case.instruction)
        before, after = self._shown(answer)
        own = self.prompts is None
        return [
            Request(semantics, Marks, [before, after], tell_schema=own),
            Request(quality, Marks, [after], tell_schema=own),
        ]

    def _prompts(self, instruction: str) -> tuple[str, str]:
        if self.prompts is None:
            return prompts.render(OWN[0], instruction=instruction), prompts.render(OWN[1])
        semantics, quality = _published(self.prompts)
        return semantics.replace("<instruction>", instruction), quality

    def _shown(self, answer: Answer) -> tuple[Image, Image]:
        if self.protocol == "gedit-upstream":
            return answer.source, metrics.resized(answer.edited, answer.source)
        place = answer.case.source
        assert place is not None
        raw = Picture(place.path, row=place.row, column="input_image_raw").image()
        return _of_area(raw), _of_area(answer.edited)

    def identity(self) -> dict[str, object]:
        found = super().identity()
        if self.prompts is None:
            return found | {"prompts": prompts.versions(OWN)}
        return found | {"prompts": list(_published(self.prompts))}


def _scored(case: Case, semantics: object, quality: object) -> Scored | Exception:
    words = []
    marks: list[Marks | None] = []
    for answer in (semantics, quality):
        if isinstance(answer, ChatError):
            if answer.raw is None:
                return answer  # the judge did not answer at all: to be asked again
            words.append(answer.raw)
            marks.append(None)
        else:
            words.append(answer.raw)  # type: ignore[attr-defined]
            marks.append(answer.value)  # type: ignore[attr-defined]
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    if marks[0] is not None and marks[1] is not None:
        success, restraint = marks[0].score
        sc, pq = min(success, restraint), min(marks[1].score)
        balance = 0.0 if sc == 0 else 2 * success * restraint / (success + restraint)
        values = {"SC": sc, "PQ": pq, "O": math.sqrt(sc * pq), "balance": balance}
    return Scored(dict.fromkeys(case.protocols, values), unparsed=None in marks, words=tuple(words))


def _of_area(image: Image) -> Image:
    height, width = image.shape[:2]
    ratio = width / height
    wide = math.sqrt(EDITMGT_SIDE_PX**2 * ratio)
    return np.asarray(Pillow.fromarray(image).resize((int(wide), int(wide / ratio))))


@cache
def _published(path: Path) -> tuple[str, str]:
    """(semantics, quality) from the string constants of the published file; it is parsed, not run."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"prompts: {path} is not the published vie_prompts.py: {error}") from None
    texts = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    try:
        semantics, quality = ("\n".join(texts[name] for name in names) for names in PUBLISHED.values())
    except KeyError as error:
        raise ValueError(f"prompts: {path} is not the published vie_prompts.py: no {error}") from None
    return semantics, quality
