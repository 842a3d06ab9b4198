"""The judge chooses among a job's candidates: real builds, against a server whose taste the test knows."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Asked, Server, serving
from conftest import lose_rows, make_run

from crispedit.compositor.landscape import landscape
from crispedit.images import decode_jpeg, encode_jpeg
from crispedit.pipelines import audit, build, cli, step, tables
from crispedit.pipelines.dry_run import dry_run
from crispedit.pipelines.records import COMPARE
from crispedit.pipelines.run import Run
from crispedit.pipelines.steps.compare import CompareStep
from crispedit.shards import journal

MADE = (
    "edit.editors={compositor: {seeds: 3}}",
    "categories={add: 1, remove: 1}",
    "select.best={unchanged.mean_abs: 1}",
)


@pytest.fixture(scope="module")
def grainy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs with grain, which is what the compositor's seeds vary."""
    folder, rng = tmp_path_factory.mktemp("grainy"), np.random.default_rng(0)
    for seed in range(4):
        noisy = landscape(4 + seed, 288, 256) + rng.normal(0, 9, (256, 288, 3))
        (folder / f"{seed}.jpg").write_bytes(encode_jpeg(noisy.clip(0, 255).astype(np.uint8)))
    return folder


@pytest.fixture(scope="module")
def built(grainy: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run where scores choose."""
    run = make_run(tmp_path_factory.mktemp("built") / "run", grainy, *MADE)
    build.build(run)
    return run


@dataclass
class Candidates:
    """Those of one job that pass, from the worst to the best by `select.best`."""

    instruction: str
    keys: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)


def jobs(run: Run, category: str = "add") -> list[Candidates]:
    """The jobs of a category, by key."""
    found: dict[str, Candidates] = {}
    rows = tables.connect(run).execute(
        'SELECT job_key, instruction, key, s."unchanged.mean_abs", edited FROM candidate JOIN score s USING (key) '
        'WHERE category = ? ORDER BY job_key, s."unchanged.mean_abs"',
        [category],
    )
    for job, instruction, key, score, edited in rows.fetchall():
        one = found.setdefault(job, Candidates(instruction))
        one.keys.append(key)
        one.scores.append(score)
        one.images.append(decode_jpeg(journal.read_blob(run.root, edited)))
    return list(found.values())


@pytest.fixture(scope="module")
def server(built: Run) -> Iterator[Server]:
    """It prefers the worst candidate, by the scores, of two jobs; on the second job whatever it is shown first; and on
    the third it has no words of the wanted shape."""
    by_words = {job.instruction: job for job in jobs(built)}
    _, second, third, _ = by_words

    def rank(job: Candidates, url: str) -> int:
        seen = decode_jpeg(base64.b64decode(url.partition(",")[2])).astype(float)
        return int(np.argmin([np.abs(seen - image).mean() for image in job.images]))

    def reply(asked: Asked) -> str:
        if asked.is_hello:
            return "here"
        text = asked.body["messages"][0]["content"][-1]["text"]
        (words,) = (words for words in by_words if f'"{words}"' in text)
        if words == third:
            return "Candidate two, I would say."
        ranks = [rank(by_words[words], url) for url in asked.images[1:]]
        return json.dumps({"candidate": 1 if words == second else 1 + ranks.index(min(ranks))})

    with serving(reply) as found:
        yield found


def judged(built: Run, root: Path, chat: dict[str, Any], *overrides: str) -> Run:
    """The run with the judge choosing, elsewhere: what it has so far is copied there, when nothing is there yet."""
    if not root.exists():
        shutil.copytree(built.root, root)
    judge = {"chat": chat, "facts": False, "rubric": False, "pool": {"gpus": 0}}
    asked = (f"filters.judge={json.dumps(judge)}", "select.judge=true")
    return make_run(root, Path(built.recipe.source.path), *MADE, *asked, *overrides)


@pytest.fixture(scope="module")
def compared(built: Run, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run where the judge chooses, built."""
    run = judged(built, tmp_path_factory.mktemp("compared") / "run", server.spec)
    build.build(run)
    assert {len(asked.images) for asked in server.asked if not asked.is_hello} == {4}
    assert questions(server) == 2 + 2 + 2 * 2 + 2  # rubbish is asked for once more
    return run


def selection(run: Run) -> dict[str, tuple[str, str | None]]:
    rows = journal.pq.read_table(run.folder("select") / "selection.parquet").to_pylist()
    return {row["key"]: (row["outcome"], row["reason"]) for row in rows}


def questions(server: Server) -> int:
    """How many were asked since the last call; each has the source and all candidates of a job before it."""
    asked = [one for one in server.asked if not one.is_hello]
    server.asked.clear()
    return len(asked)


def test_the_judges_choice_is_kept_and_where_it_has_none_the_scores_choose(built: Run, compared: Run):
    run = compared
    assert set(selection(built).values()) == {("kept", None), ("rejected", "not_best")}
    first, second, third, fourth = jobs(run)
    found = selection(run)
    for job in (first, fourth):
        assert [found[key] for key in job.keys] == [
            ("kept", None),
            ("rejected", "not_chosen"),
            ("rejected", "not_chosen"),
        ]
    for job in (second, third):
        assert [found[key] for key in job.keys] == [("rejected", "not_best"), ("rejected", "not_best"), ("kept", None)]

    rows = {tuple(row["candidates"]): row for row in journal.read(run.folder("compare"), COMPARE).to_pylist()}
    chosen, undecided, failed, _ = (rows[tuple(sorted(job.keys))] for job in (first, second, third, fourth))
    assert chosen["chosen"] == first.keys[0]
    place = chosen["candidates"].index(first.keys[0])
    said = {name: json.loads(words) for name, words in json.loads(chosen["answers"]).items()}
    assert said == {"in_order": {"candidate": place + 1}, "in_reverse": {"candidate": 3 - place}}
    assert (undecided["chosen"], undecided["error"]) == (None, None)
    assert json.loads(undecided["answers"])["in_reverse"] == '{"candidate": 1}'
    assert "Candidate two, I would say." in failed["error"]

    (line,) = (count for count in audit.audit(run).counts if count.step == "compare")
    assert (line.category, line.rows, line.kept, line.not_reached) == ("add", 4, 2, 0)
    assert (line.rejected, line.error) == ({"undecided": 1}, {"compare": 1})
    told = "chosen by the judge: for 2 of 4 jobs with several candidates that pass (undecided 1, error 1)"
    assert told in audit.summary(audit.audit(run))
    assert told not in audit.summary(audit.audit(built))


def test_candidates_with_sources_of_their_own_are_not_compared(compared: Run):
    """To remove a thing, the compositor first adds it: with the grain of a seed."""
    shown = {key for row in journal.read(compared.folder("compare"), COMPARE).to_pylist() for key in row["candidates"]}
    removed = {key for job in jobs(compared, "remove") for key in job.keys}
    added = {key for job in jobs(compared, "add") for key in job.keys}
    assert len(removed) == len(added) == 12
    assert shown == added
    assert {selection(compared)[key] for key in removed} == {("kept", None), ("rejected", "not_best")}


def test_a_comparison_is_committed_once_and_what_was_lost_is_asked_again(compared: Run, server: Server, tmp_path: Path):
    run = judged(compared, tmp_path / "run", server.spec)
    found, shards = selection(run), (run.folder("shards") / "manifest.json").read_bytes()
    lose_rows(run.folder("compare"), lambda row: row["chosen"] == jobs(run)[0].keys[0])
    build.step(run, "select")
    assert selection(run) != found
    build.build(run)
    assert questions(server) == 2
    build.build(run)
    assert not server.asked
    assert selection(run) == found
    assert (run.folder("shards") / "manifest.json").read_bytes() == shards


def test_other_bounds_compare_only_the_jobs_where_other_candidates_pass(compared: Run, server: Server, tmp_path: Path):
    run = judged(compared, tmp_path / "run", server.spec)
    first = jobs(run)[0]
    low, middle, high = first.scores
    assert low < middle < high

    def at_least(score: float) -> tuple[str, ...]:
        return (f"categories.add={{jobs: 1, bounds: {{unchanged.mean_abs: {{min: {score}}}}}}}",)

    two = judged(compared, run.root, server.spec, *at_least((low + middle) / 2))
    told = "1 jobs have other passing candidates than the judge has compared"
    assert told in step.what_if(run, two)
    assert told not in step.what_if(two, run)
    build.step(two, "select")
    (line,) = (count for count in audit.audit(two).counts if count.step == "compare")
    assert line.not_reached == 1
    assert selection(two)[first.keys[2]] == ("kept", None)  # by its score, for now
    build.step(two, "compare")
    build.step(two, "select")
    assert {len(asked.images) for asked in server.asked if not asked.is_hello} == {3}
    assert questions(server) == 2
    assert [selection(two)[key] for key in first.keys] == [
        ("rejected", "unchanged.mean_abs:low"),
        ("kept", None),
        ("rejected", "not_chosen"),
    ]

    one = judged(compared, run.root, server.spec, *at_least((middle + high) / 2))
    build.step(one, "compare")
    build.step(one, "select")
    assert not server.asked  # a job with one survivor needs no judge
    assert selection(one)[first.keys[2]] == ("kept", None)
    build.step(run, "compare")
    build.step(run, "select")
    assert not server.asked  # back to what was compared already
    assert selection(run)[first.keys[0]] == ("kept", None)


def test_another_model_does_not_mix_its_choices_in(compared: Run, server: Server):
    other = judged(compared, compared.root, server.spec | {"model": "other"})
    with pytest.raises(
        ValueError, match=r"compare was made with other settings[^$]*filters.judge.chat.model: was 'tiny'"
    ):
        other.begin({"compare": CompareStep(other).identity()})
    same = judged(compared, compared.root, server.spec | {"concurrency": 1})
    same.begin({"compare": CompareStep(same).identity()})


def test_a_dry_run_projects_the_comparisons(built: Run, server: Server, tmp_path: Path):
    run = judged(built, tmp_path / "run", server.spec)
    steps = {cost.step: cost for cost in dry_run(run, 2).steps}
    assert steps["compare"].rows == 4  # two jobs, of half the photographs
    assert steps["compare"].gigabytes > 0


def test_without_a_model_the_judge_cannot_choose(built: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    photographs = Path(built.recipe.source.path)
    for overrides in (["select.judge=true"], ["select.judge=true", "filters.judge={}"]):
        with pytest.raises(ValueError, match=r"select.judge .* set filters.judge.chat"):
            make_run(tmp_path / "run", photographs, *overrides)
    assert not built.folder("compare").exists()
    assert cli.main(["step", "compare", str(built.root)]) == 2
    assert "select.judge is false" in capsys.readouterr().err
