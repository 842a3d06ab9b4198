"""Evaluate editors on benchmarks, against two controls: copying the source, and the ground truth.

    crispedit evaluate configs/evaluate/shards.yaml benchmarks.shards.path=SHARDS out=runs/evaluation

Writes OUT/results.json and OUT/results.md beside the resolved recipe and the tables that they are read from. The same
command continues a run that was killed, and scores nothing twice. Protocols and their traps: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from crispedit import benchmarks as benchmark_folder
from crispedit import editors as editor_folder
from crispedit import parts, recipe
from crispedit.benchmark import Benchmark, Case, Picture
from crispedit.benchmarks.shards import Shards
from crispedit.measures import Models
from crispedit.parts import Editor
from crispedit.pipelines import engine
from crispedit.pipelines.evaluation import scoreboard
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Evaluation, Given
from crispedit.pipelines.recipe import Engine
from crispedit.recipe import PartSpec, Pool, Strict
from crispedit.record import content_key
from crispedit.shards import journal, layout
from crispedit.shards.index import open_index
from crispedit.shards.lock import locked
from crispedit.shards.remote import Cache


class EntrySpec(PartSpec):
    """A row of the table: an editor with its options beside it, or a folder of results."""

    editor: str | None = None
    results: Path | None = None
    """Images named by the ids of the cases."""


class Recipe(Strict):
    """One evaluation, whole."""

    out: Path
    benchmarks: dict[str, dict[str, Any]] = Field(min_length=1)
    """By name, with their options."""
    editors: dict[str, EntrySpec] = {}
    """By the name that the table shows; the controls are always there."""
    models: Models = Models()
    limit: int | None = Field(None, ge=1)
    """Only so many families of cases (a session is one), chosen by their ids' hashes; null: all."""
    bootstrap: int = Field(1000, ge=100)
    level: float = Field(0.95, gt=0, lt=1)
    measure: Pool = Pool()
    """The actors that measure."""
    engine: Engine = Engine(kind="inprocess")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file, or the name of one in configs/evaluate")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as out=runs/evaluation")


def run(args: argparse.Namespace) -> int:
    print(evaluate(load(args.recipe, args.overrides)))
    return 0


def load(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file, or one that ships, by its name in `configs/evaluate`."""
    shipped = resources.files("crispedit.configs") / "evaluate" / f"{Path(path).stem}.yaml"
    if not Path(path).is_file() and shipped.is_file():
        return recipe.parse(Recipe, shipped.read_text(encoding="utf-8"), overrides, name=path)
    return recipe.load(Recipe, Path(path), overrides)


def evaluate(of: Recipe) -> str:
    """Carry out an evaluation; returns its page as Markdown, which lies in `results.md` too."""
    made = {name: _benchmark(name, options) for name, options in of.benchmarks.items()}
    editors = {label: _editor(label, spec) for label, spec in of.editors.items() if spec.results is None}
    taken = f"another evaluation is working in {of.out}; wait, or choose another out=DIR"
    with locked(of.out / ".lock", taken), engine.cluster(of.engine):
        with journal.replaced(of.out / "recipe.yaml") as out:
            out.write(yaml.safe_dump(of.model_dump(mode="json"), sort_keys=False).encode())
        boards = {name: _board(of, name, benchmark, editors) for name, benchmark in made.items()}
    page = scoreboard.markdown(boards, of.level)
    with journal.replaced(of.out / "results.json") as out:
        out.write((json.dumps(boards, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    with journal.replaced(of.out / "results.md") as out:
        out.write(page.encode())
    return page


def _benchmark(name: str, options: Mapping[str, Any]) -> Benchmark:
    return parts.make(benchmark_folder, name, Benchmark, options)


def _editor(label: str, spec: EntrySpec) -> Editor:
    if spec.editor is None:
        raise ValueError(f"editors.{label}: name an editor, or a folder of results")
    if label in (COPY, TRUTH):
        raise ValueError(f"editors.{label}: this is a control's name; choose another")
    return parts.make(editor_folder, spec.editor, Editor, spec.options)


def _board(
    of: Recipe, name: str, benchmark: Benchmark, editors: Mapping[str, Editor]
) -> dict[str, scoreboard.Json]:
    """Edit, score and count one benchmark."""
    if isinstance(benchmark, Shards):
        benchmark = benchmark.listed(shard_cases(benchmark))
    cases = _limited(benchmark.cases(), of.limit)
    if not cases:
        raise ValueError(f"benchmarks.{name}: it has no cases")
    made = Evaluation(name, benchmark, cases, of.models, of.out)
    made.sweep()
    answers = {COPY: made.copied(), TRUTH: made.truth()}
    for label, spec in of.editors.items():
        answers[label] = _answers(of, made, label, spec, editors.get(label))
    work = made.scoring(answers, of.measure)
    if work is not None:
        engine.run(work, of.engine)
    outcomes = {label: made.outcomes(given) for label, given in answers.items()}
    return {
        protocol: scoreboard.protocol_board(protocol, spec, outcomes, of.models, of.bootstrap, of.level)
        for protocol, spec in benchmark.protocols.items()
    }


def _answers(
    of: Recipe, made: Evaluation, label: str, spec: EntrySpec, editor: Editor | None
) -> dict[str, Given]:
    if spec.results is not None:
        if spec.editor is not None or spec.options:
            raise ValueError(f"editors.{label}: a folder of results takes no editor and no options")
        return made.found_in(spec.results)
    assert editor is not None
    working = editor.model_copy()  # goes with its weights before the next editor loads its own
    for wave in made.waves():
        work = made.editing(label, working, spec.pool, wave)
        if work is not None:
            engine.run(work, of.engine)
    return made.edited(editor)


def _limited(cases: Sequence[Case], limit: int | None) -> list[Case]:
    families = sorted(
        {case.family or case.id for case in cases}, key=lambda name: content_key("evaluate", name)
    )
    chosen = set(families[:limit])
    return [case for case in cases if (case.family or case.id) in chosen]


def shard_cases(of: Shards) -> list[Case]:
    """The pairs of a shard set as cases, in key order. Their pixels stay where they are."""
    given = [of.path] if isinstance(of.path, str) else list(of.path)
    index = open_index(given, Cache())
    found = []
    for sample in range(len(index)):
        at = index.at(sample)
        if of.categories and at.category not in of.categories:
            continue
        path = index.shards[at.shard].path
        path = path if "://" in path else str(Path(path).absolute())
        members = {
            name: Picture(path, offset=offset, size=size)
            for name, offset, size in zip(layout.MEMBERS, at.offsets, at.sizes, strict=True)
            if offset >= 0
        }
        meta = json.loads(members[layout.META].read())
        found.append(
            Case(
                id=at.key,
                instruction=meta["instruction"],
                source=members[layout.SOURCE],
                group=at.category,
                target=members[layout.EDITED],
                mask=members.get(layout.MASK),
                source_caption=meta.get("source_caption") or None,
                target_caption=meta.get("target_caption") or None,
                # Edits of one photograph stand or fall together.
                family=meta.get("source_key") or at.key,
                protocols=tuple(of.protocols),
            )
        )
    if not found:
        raise ValueError(f"benchmarks.shards: no pairs of {', '.join(of.categories) or 'any category'}")
    return sorted(found, key=lambda case: case.id)
