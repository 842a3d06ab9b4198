"""The stages of an evaluation: edit, measure, compare. Each runs in processes of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from crispedit import metrics
from crispedit.benchmark import Answer, AnswerPair, Benchmark, Case, Picture
from crispedit.judge import JudgeDownError
from crispedit.measures import Measures, Models
from crispedit.parts import Editor
from crispedit.pipelines.engine import Row
from crispedit.pipelines.evaluation.kept import Edits
from crispedit.pipelines.evaluation.tables import STOPPED, without_addresses
from crispedit.pipelines.scheduling.flow import failed
from crispedit.recipe import Pool
from crispedit.record import Edit, Image, Refusal, canonical_json
from crispedit.shards import journal


@dataclass
class AnswerStage:
    """The stage that edits: cases in, PNG answers out."""

    name: str
    pool: Pool
    editor: Editor
    benchmark: Benchmark
    kept: Edits
    gpus: float = 0.0

    def load(self) -> None:
        self.editor.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        cases = [Case.from_json(row["asked_of"]) for row in rows]
        sources = [self.benchmark.image(_picture(row["source"])) for row in rows]
        jobs = [case.job() for case in cases]
        start = time.perf_counter()
        edits = self.editor.edit(sources, jobs, [row["number"] for row in rows])
        seconds = (time.perf_counter() - start) / len(rows)
        done = [_edited({**row, "seconds": seconds}, edit) for row, edit in zip(rows, edits, strict=True)]
        for row in done:
            self.kept.keep(row)
        return done


def _edited(row: Row, edit: Edit | Refusal | Exception) -> Row:
    if isinstance(edit, Exception):
        return failed(row, edit)
    if isinstance(edit, Refusal):
        return {**row, "refusal": edit.reason}
    return {**row, "image": _png(edit.edited)}


@dataclass
class _Measuring:
    """Base of the stages that measure: loads the models, and notes if the judge is down."""

    name: str
    pool: Pool
    benchmark: Benchmark
    models: Models
    gpus: float = 0.0
    kept: Path | None = None
    folder: Path = Path()
    _measures: Measures | None = None

    def load(self) -> None:
        self._measures = Measures(self.models, self.kept)
        self._measures.load()

    @property
    def measures(self) -> Measures:
        assert self._measures is not None
        return self._measures

    def failed(self, row: Row, error: Exception) -> Row:
        """The row with its error. A row that was not asked because the judge is down is not committed."""
        if isinstance(error, JudgeDownError):
            with journal.replaced(self.folder / STOPPED) as out:
                out.write(json.dumps({"last": without_addresses(str(error))}).encode())
        return {**row, "error": f"{type(error).__name__}: {error}", "stopped": isinstance(error, JudgeDownError)}

    def answer(self, row: Row, name: str, shown: dict[Picture, Image]) -> Answer:
        def image(picture: Picture) -> Image:
            if picture not in shown:
                shown[picture] = self.benchmark.image(picture)
            return shown[picture]

        case = Case.from_json(row["asked_of"])
        answer = _picture(row[name])
        source = image(_picture(row["source"]))
        target = None if case.target is None else image(case.target)
        mask = None if case.mask is None else self.benchmark.mask(case.mask)
        # A control's answer is a picture of the case, so it is prepared as for an editor; others are used unchanged.
        edited = shown[answer] if answer in shown else answer.image()
        return Answer(case, source, edited, target, mask, row["repeat"])


class MetricStage(_Measuring):
    """The stage that measures: answers in, JSON of their metrics out."""

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        shown: dict[Picture, Image] = {}  # answers to one case follow each other, so its images are decoded once
        answers = [self.answer(row, "answer", shown) for row in rows]
        scored = self.benchmark.score(answers, self.measures)
        done = []
        for row, answer, result in zip(rows, answers, scored, strict=True):
            if isinstance(result, Exception):
                done.append(self.failed(row, result))
                continue
            values, words = canonical_json(result.values), canonical_json(result.words)
            flags = {"black": metrics.black(answer.edited), "unparsed": result.unparsed}
            done.append({**row, **flags, **vars(result.usage), "values": values, "words": words})
        return done


class JudgeStage(_Measuring):
    """The stage that compares: pairs of answers in, the judge's verdicts out."""

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        shown: dict[Picture, Image] = {}
        pairs = [
            AnswerPair(self.answer(row, "first_answer", shown), self.answer(row, "second_answer", shown))
            for row in rows
        ]
        done = []
        for row, result in zip(rows, self.benchmark.compare(pairs, self.measures), strict=True):
            if isinstance(result, Exception):
                done.append(self.failed(row, result))
                continue
            columns = {
                name: canonical_json(getattr(result, name)) for name in ("winners", "in_order", "reversed", "words")
            }
            done.append({**row, **columns, **vars(result.usage), "unparsed": result.unparsed})
        return done


def _png(image: Image) -> bytes:
    """A PNG: lossless, so that storing an answer changes no score."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(np.asarray(data))


def _picture(text: str) -> Picture:
    return Picture(**json.loads(text))
