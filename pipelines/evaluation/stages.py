"""The stages of an evaluation: edit, measure, compare. Each runs in processes of its own."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from crispedit import metrics
from crispedit.benchmark import Answer, AnswerPair, Benchmark, Case, Compared, Picture, Scored
from crispedit.judge import JudgeDownError
from crispedit.measures import Measures, Models
from crispedit.parts import Editor
from crispedit.pipelines.engine import Row
from crispedit.pipelines.evaluation.tables import STOPPED, without_addresses
from crispedit.pipelines.scheduling.flow import failed
from crispedit.recipe import Pool
from crispedit.record import Image, Refusal, canonical_json
from crispedit.shards import journal

CACHED_COLUMNS = ("seconds", "refusal")


@dataclass(frozen=True)
class Edits:
    """A cache of edits in a folder, so that each is paid for once; several evaluations may share it,
    also at the same time. One file per edit, named by a hash of everything that determines it: the editor with its
    options and weights, the source's bytes, the request and the seed (a row's `edit`)."""

    folder: Path

    def recall(self, name: str) -> dict[str, Any] | None:
        """The stored columns of an edit (PNG or refusal, and seconds); None if it is not stored."""
        try:
            stored = json.loads(self._file(name, "json").read_text(encoding="utf-8"))
            columns = {column: stored[column] for column in CACHED_COLUMNS}
            return columns | {"image": self._file(name, "png").read_bytes() if stored["refusal"] is None else None}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def has(self, name: str) -> bool:
        return self._file(name, "json").is_file()

    def keep(self, row: Mapping[str, Any]) -> None:
        """Store an edited or refused row; failed ones are tried again."""
        if row.get("error") is not None:
            return
        if (image := row.get("image")) is not None:
            with journal.replaced(self._file(row["edit"], "png")) as out:
                out.write(image)
        with journal.replaced(self._file(row["edit"], "json")) as out:
            out.write(canonical_json({column: row.get(column) for column in CACHED_COLUMNS}).encode())

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / name[:2] / f"{name}.{suffix}"


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
        done = []
        for row, edit in zip(rows, edits, strict=True):
            timed = {**row, "seconds": seconds}
            if isinstance(edit, Exception):
                done.append(failed(timed, edit))
            elif isinstance(edit, Refusal):
                done.append({**timed, "refusal": edit.reason})
            else:
                done.append({**timed, "image": _png(edit.edited)})
            self.kept.keep(done[-1])
        return done


@dataclass
class MetricStage:
    """The stage that measures: answers in, or pairs of them; their metrics out, or the judge's verdicts, as JSON."""

    name: str
    pool: Pool
    benchmark: Benchmark
    models: Models
    kept: Path
    folder: Path
    gpus: float
    _measures: Measures | None = None

    def load(self) -> None:
        self._measures = Measures(self.models, self.kept)
        self._measures.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        assert self._measures is not None
        shown: dict[Picture, Image] = {}  # answers to one case follow each other, so its images are decoded once
        if self.benchmark.pairwise:
            pairs = [AnswerPair(*(self._answer(row, name, shown) for name in ("first", "second"))) for row in rows]
            compared = self.benchmark.compare(pairs, self._measures)
            return [self._measured(row, result) for row, result in zip(rows, compared, strict=True)]
        answers = [self._answer(row, "editor", shown) for row in rows]
        scored = self.benchmark.score(answers, self._measures)
        black = [{"black": metrics.black(answer.edited)} for answer in answers]
        return [self._measured(row | flag, result) for row, flag, result in zip(rows, black, scored, strict=True)]

    def _measured(self, row: Row, result: Scored | Compared | Exception) -> Row:
        """The row with its result or error. A row that was not asked because the judge is down is not committed."""
        if isinstance(result, Exception):
            down = isinstance(result, JudgeDownError)
            if down:
                with journal.replaced(self.folder / STOPPED) as out:
                    out.write(json.dumps({"last": without_addresses(str(result))}).encode())
            return {**row, "error": f"{type(result).__name__}: {result}", "stopped": down}
        columns = {
            name: canonical_json(value) for name, value in vars(result).items() if name not in ("unparsed", "usage")
        }
        return {**row, **columns, **vars(result.usage), "unparsed": result.unparsed}

    def _answer(self, row: Row, editor: str, shown: dict[Picture, Image]) -> Answer:
        def image(picture: Picture) -> Image:
            if picture not in shown:
                shown[picture] = self.benchmark.image(picture)
            return shown[picture]

        case = Case.from_json(row["asked_of"])
        answer = _picture(row[f"{editor}_answer"])
        source = image(_picture(row["source"]))
        target = None if case.target is None else image(case.target)
        mask = None if case.mask is None else self.benchmark.mask(case.mask)
        # A control's answer is a picture of the case, so it is prepared as for an editor; others are used unchanged.
        edited = shown[answer] if answer in shown else answer.image()
        return Answer(case, source, edited, target, mask, row["repeat"])


def _png(image: Image) -> bytes:
    """A PNG: lossless, so that storing an answer changes no score."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(np.asarray(data))


def _picture(text: str) -> Picture:
    return Picture(**json.loads(text))
