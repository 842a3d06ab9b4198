"""A whole run over a folder of hostile files: each ends as the row it should, and none stops the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
from bad_inputs import MAX_PIXELS, write_corpus
from conftest import make_run

from crispedit.pipelines import audit, build, sources
from crispedit.pipelines.run import Run


def outcomes(run: Run) -> dict[str, str]:
    rows = pq.read_table(run.folder("select") / "sources.parquet").to_pylist()
    assert len({row["uri"] for row in rows}) == len(rows)
    return {row["uri"]: f"rejected:{row['reason']}" if row["outcome"] == "rejected" else row["outcome"] for row in rows}


def hostile_run(tmp_path: Path, *overrides: str) -> tuple[Run, dict[str, str]]:
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = write_corpus(folder)
    lenient = ["curate.filters={}", f"curate.max_pixels={MAX_PIXELS}", "categories={style: 1, add: 1}"]
    return make_run(tmp_path / "run", folder, *lenient, *overrides), expected


def check(run: Run, expected: dict[str, str]) -> None:
    assert len(expected) >= 120
    build.build(run)
    found = outcomes(run)
    assert {uri: found.get(uri) for uri in expected} == expected
    assert len(found) == len(sources.entries(run.recipe.source))
    (line,) = [count for count in audit.audit(run).counts if count.step == "curate"]
    assert line.rows == len(found)
    assert line.kept == Counter(found.values())["kept"]
    failed = Counter(found.values())
    assert sum(line.error.values()) == failed["error"] + failed["transient"]
    # The small ones that are kept go on through every step, where each again ends as a row.
    lines = [count for count in audit.audit(run).counts if count.step == "annotate"]
    assert sum(count.rows for count in lines) == 2 * line.kept


def test_in_process(tmp_path: Path):
    check(*hostile_run(tmp_path))


def test_on_ray(tmp_path: Path, ray_nodes: None):
    check(*hostile_run(tmp_path, "engine.kind=ray"))
