"""Evaluation: editors over a benchmark's cases, metrics over their answers; both as tables of committed parts.

    OUT/answers/   one row per case and editor: the image it answered with (PNG), or its refusal
    OUT/scores/    one row per case and editor, and per set of measuring models: what was measured

A row's key is of everything that decides it (benchmark, case, editor with its weights, models), so a run that is killed
goes on where it was, a changed option adds rows beside the old ones, and nothing is ever scored twice. What failed is
kept under a key of its own and tried again by the next run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import xxhash

from crispedit import metrics
from crispedit.benchmark import Answer, Benchmark, Case, Picture
from crispedit.measures import Measures, Models
from crispedit.parts import Editor
from crispedit.pipelines.engine import Row, Work
from crispedit.recipe import Pool
from crispedit.record import Image, Job, Refusal, canonical_json, content_key, seed_of
from crispedit.shards import journal
from crispedit.shards.journal import Table

COPY, TRUTH = "copy-source", "ground-truth"
"""The controls: doing nothing, and doing what the benchmark's target shows."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

ANSWERS = Table(
    pa.schema(
        [
            ("key", pa.string()),
            ("editor", pa.string()),
            ("case", pa.string()),
            ("refusal", pa.string()),
            ("error", pa.string()),
            ("image", pa.binary()),
        ]
    ),
    blobs={"image": "png"},
)
SCORES = Table(
    pa.schema(
        [
            ("key", pa.string()),
            ("editor", pa.string()),
            ("case", pa.string()),
            ("black", pa.bool_()),
            ("unparsed", pa.bool_()),
            ("values", pa.string()),  # JSON: protocol -> metric -> number or null
            ("words", pa.string()),  # JSON: what a judge said
            ("error", pa.string()),
        ]
    )
)
ASKED = pa.schema([*ANSWERS.schema, ("asked", pa.string()), ("source", pa.string())])
SHOWN = pa.schema([*SCORES.schema, ("asked", pa.string()), ("source", pa.string()), ("answer", pa.string())])


@dataclass(frozen=True)
class Given:
    """An answer before it is scored: where its image lies, or why there is none. `key` names what it is made from."""

    key: str
    picture: Picture | None
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one case: its scores, or why it has none."""

    case: Case
    reason: str = ""
    """Why the answer is missing; empty if it was scored."""
    black: bool = False
    unparsed: bool = False
    values: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)


class Evaluation:
    """One benchmark under one folder of tables."""

    def __init__(
        self, name: str, benchmark: Benchmark, cases: Sequence[Case], models: Models, out: Path
    ) -> None:
        self.name, self.benchmark, self.models = name, benchmark, models
        self.cases = {case.id: case for case in cases}
        if len(self.cases) < len(cases):
            twice = next(case for case, count in Counter(case.id for case in cases).items() if count > 1)
            raise ValueError(f"benchmarks.{name}: two cases are called {twice!r}")
        self.answers, self.scores = out.absolute() / name / "answers", out.absolute() / name / "scores"
        self._identity = canonical_json(benchmark.identity())
        self._measuring = canonical_json({"models": models.identity(), "metrics": metrics.VERSION})

    def sweep(self) -> None:
        for folder in (self.answers, self.scores):
            journal.sweep(folder)

    # Answers

    def copied(self) -> dict[str, Given]:
        """The control that does nothing: every case's own source. A chain of turns ends where it began."""
        found: dict[str, Given] = {}
        for case in self.cases.values():
            before = found[case.after].picture if case.after is not None else case.source
            found[case.id] = Given(COPY, before)
        return found

    def truth(self) -> dict[str, Given]:
        """The control that does what the targets show; empty where the benchmark has none."""
        return {case.id: Given(TRUTH, case.target) for case in self.cases.values() if case.target is not None}

    def found_in(self, folder: Path) -> dict[str, Given]:
        """Results from a folder of images named by the cases' ids. ValueError if it holds none of them."""
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder of results")
        files: dict[str, list[Path]] = {}
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
            files.setdefault(path.stem, []).append(path)
        names = Counter(PurePosixPath(case).name for case in self.cases)
        found = {}
        for case in self.cases.values():
            wanted = PurePosixPath(case.id)
            same = files.get(wanted.name, [])
            named = [
                path for path in same if path.with_suffix("").parts[-len(wanted.parts) :] == wanted.parts
            ]
            # Folders may be left out where the file's name alone says which case is meant.
            if not named and len(same) == names[wanted.name] == 1:
                named = same
            if named:
                digest = xxhash.xxh3_128_hexdigest(named[0].read_bytes())
                found[case.id] = Given(digest, Picture(str(named[0].absolute())))
        if not found:
            example = next(iter(self.cases), "ID")
            raise ValueError(f"{folder} holds no results for {self.name}: its images are named {example}.png")
        return {case: found.get(case, Given("", None, "no image in the folder")) for case in self.cases}

    def waves(self) -> list[list[Case]]:
        """The cases in rounds: those of a round need answers of earlier rounds only."""
        depth: dict[str, int] = {}
        for case in self.cases.values():
            if case.after is not None and case.after not in depth:
                raise ValueError(f"{self.name}: case {case.id} comes before {case.after}, which it continues")
            depth[case.id] = 0 if case.after is None else depth[case.after] + 1
        rounds: list[list[Case]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
        for case in self.cases.values():
            rounds[depth[case.id]].append(case)
        return rounds

    def editing(self, label: str, editor: Editor, pool: Pool, wave: Sequence[Case]) -> Work | None:
        """What is left to edit of one round; None if nothing is."""
        identity = canonical_json(editor.identity())
        given = self._answered(identity)
        plan = []
        for case in wave:
            source = case.source if case.after is None else given[case.after].picture
            key = self._answer_key(case, identity)
            if source is not None and given[case.id].picture is None and not given[case.id].reason:
                row = {"key": key, "editor": label, "case": case.id, "asked": case.to_json()}
                plan.append(row | {"source": _where(source)})
        if not plan:
            return None
        stage = Editing(f"edit {label}", pool, editor, self.benchmark, editor.gpus)
        return Work(f"edit {label}", self.answers, ANSWERS, plan, [stage], ASKED, Kept(ANSWERS), len(plan))

    def edited(self, editor: Editor) -> dict[str, Given]:
        """What an editor has answered, case by case."""
        found = self._answered(canonical_json(editor.identity()), errors=True)
        return {
            case: given if given.picture or given.reason else Given("", None, "not edited")
            for case, given in found.items()
        }

    def _answered(self, identity: str, errors: bool = False) -> dict[str, Given]:
        """By case; without `errors`, what failed counts as not tried."""
        committed = _by_key(self.answers, ANSWERS)
        found = {}
        for case in self.cases.values():
            key = self._answer_key(case, identity)
            row = committed.get(key) or (committed.get(_error_key(key)) if errors else None)
            if row is None:
                found[case.id] = Given(key, None)
            elif row["image"] is None:
                found[case.id] = Given(key, None, row["refusal"] or f"error: {row['error']}")
            else:
                ref = row["image"]
                tar = str(self.answers / ref["tar"])
                found[case.id] = Given(key, Picture(tar, offset=ref["offset"], size=ref["size"]))
        return found

    def _answer_key(self, case: Case, identity: str) -> str:
        return content_key("answer", self._identity, identity, *self._chain(case))

    def _chain(self, case: Case) -> list[str]:
        """The cases that lead to this one: an answer is made from all of them."""
        before = [] if case.after is None else self._chain(self.cases[case.after])
        return [*before, case.id, case.instruction]

    # Scores

    def scoring(self, answers: Mapping[str, Mapping[str, Given]], pool: Pool) -> Work | None:
        """What is left to score, of every editor; a case's answers together, so that its target is embedded once."""
        committed = _by_key(self.scores, SCORES, ["key"])
        plan = []
        for case in self.cases.values():
            source = answers[COPY][case.id].picture
            for label, given in answers.items():
                answer = given.get(case.id)
                if not case.protocols or answer is None or answer.picture is None:
                    continue
                key = self._score_key(case, answer)
                if key not in committed:
                    row = {"key": key, "editor": label, "case": case.id, "asked": case.to_json()}
                    plan.append(row | {"source": _where(source), "answer": _where(answer.picture)})
        if not plan:
            return None
        gpus = 0.0 if pool.gpus is None else pool.gpus
        plan = list({row["key"]: row for row in plan}.values())  # two labels of one editor are one answer
        stage = Scoring("score", pool, self.benchmark, self.models, gpus)
        return Work("score", self.scores, SCORES, plan, [stage], SHOWN, Kept(SCORES), len(plan))

    def outcomes(self, given: Mapping[str, Given]) -> list[Outcome]:
        """What became of every scored case that this editor could have answered, from the committed rows."""
        committed = _by_key(self.scores, SCORES)
        found = []
        for case in self.cases.values():
            answer = given.get(case.id)
            if answer is None or not case.protocols:
                continue
            key = self._score_key(case, answer)
            row, failed = committed.get(key), committed.get(_error_key(key))
            if answer.picture is None:
                found.append(Outcome(case, answer.reason))
            elif row is None:
                found.append(Outcome(case, f"error: {failed['error']}" if failed else "not scored"))
            else:
                values = json.loads(row["values"])
                found.append(Outcome(case, "", row["black"], row["unparsed"], values))
        return found

    def _score_key(self, case: Case, given: Given) -> str:
        return content_key("score", self._identity, self._measuring, case.to_json(), given.key)


@dataclass
class Editing:
    """The stage that edits: cases in, PNG answers out."""

    name: str
    pool: Pool
    editor: Editor
    benchmark: Benchmark
    gpus: float = 0.0

    def load(self) -> None:
        self.editor.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        cases = [Case.from_json(row["asked"]) for row in rows]
        sources = [self.benchmark.image(_picture(row["source"])) for row in rows]
        jobs = [_job(case) for case in cases]
        edits = self.editor.edit(sources, jobs, [seed_of(row["key"], "edit") for row in rows])
        return [
            {**row, "refusal": edit.reason}
            if isinstance(edit, Refusal)
            else {**row, "image": _png(edit.edited)}
            for row, edit in zip(rows, edits, strict=True)
        ]


@dataclass
class Scoring:
    """The stage that measures: answers in, JSON of their metrics out."""

    name: str
    pool: Pool
    benchmark: Benchmark
    models: Models
    gpus: float = 0.0
    _measures: Measures | None = None

    def load(self) -> None:
        self._measures = Measures(self.models)
        self._measures.load()

    def process(self, rows: Sequence[Row]) -> Sequence[Row]:
        assert self._measures is not None
        shown: dict[Picture, Image] = {}  # the answers to one case follow each other: decode its images once
        answers = [self._answer(row, shown) for row in rows]
        scored = self.benchmark.score(answers, self._measures)
        done = []
        for row, answer, found in zip(rows, answers, scored, strict=True):
            if isinstance(found, Exception):
                done.append({**row, "error": f"{type(found).__name__}: {found}"})
                continue
            values, words = canonical_json(found.values), canonical_json(found.words)
            flags = {"black": metrics.black(answer.edited), "unparsed": found.unparsed}
            done.append({**row, **flags, "values": values, "words": words})
        return done

    def _answer(self, row: Row, shown: dict[Picture, Image]) -> Answer:
        def image(picture: Picture) -> Image:
            if picture not in shown:
                shown[picture] = self.benchmark.image(picture)
            return shown[picture]

        case = Case.from_json(row["asked"])
        answer = _picture(row["answer"])
        source = image(_picture(row["source"]))
        target = None if case.target is None else image(case.target)
        mask = None if case.mask is None else self.benchmark.mask(case.mask)
        # A control's answer is a picture of the case, so it is seen as the editor sees it; others are as they came.
        edited = shown[answer] if answer in shown else answer.image()
        return Answer(case, source, edited, target, mask)


def _job(case: Case) -> Job:
    return Job(
        source_key=content_key("case", case.id),
        category=case.group,
        instruction=case.instruction,
        source_caption=case.source_caption or "",
        target_caption=case.target_caption or "",
    )


def _png(image: Image) -> bytes:
    """Without loss, so that storing an answer changes no score."""
    done, data = cv2.imencode(
        ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    assert done
    return bytes(np.asarray(data))


def _where(picture: Picture | None) -> str:
    assert picture is not None
    return canonical_json(vars(picture))


def _picture(text: str) -> Picture:
    return Picture(**json.loads(text))


def _error_key(key: str) -> str:
    return content_key("error", key)


@dataclass(frozen=True)
class Kept:
    """What a done row commits: the table's columns; a failure under its own key, so that the next run tries again."""

    table: Table

    def __call__(self, row: Row) -> list[Row]:
        found: dict[str, Any] = {name: row.get(name) for name in self.table.schema.names}
        return [found if found["error"] is None else {**found, "key": _error_key(found["key"])}]


def _by_key(folder: Path, table: Table, columns: Sequence[str] | None = None) -> dict[str, Row]:
    return {row["key"]: row for row in journal.read(folder, table, columns).to_pylist()}
