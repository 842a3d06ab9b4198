"""The benchmark of faults: a few of them, and that it would notice if a build came out otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chaos
from crispedit.shards import journal


@pytest.fixture(scope="module")
def struck(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[chaos.Fault]]:
    folder = tmp_path_factory.mktemp("chaos") / "runs"
    return folder, chaos.chaos(chaos.World(folder, seed=0, share=0.1), ["tables", "inputs"])


def test_every_build_that_was_struck_is_identical(struck: tuple[Path, list[chaos.Fault]]):
    _, faults = struck
    assert {fault.scene for fault in faults} == {"tables", "inputs"}
    assert all(fault.identical and fault.runs >= 1 for fault in faults), faults


def test_the_table_has_a_line_for_each_kind(struck: tuple[Path, list[chaos.Fault]]):
    _, faults = struck
    odd = chaos.Fault("tables", faults[0].kind, "edit", 5, identical=False)
    lines = chaos.table([*faults, odd]).splitlines()
    assert len(lines) == 2 + len({fault.kind for fault in faults})
    assert lines[2].startswith(f"| {faults[0].kind} | 2 | ")
    assert lines[2].endswith(f"| {faults[0].runs} to 5 | 1 of 2 |")


def test_what_differs_is_noticed(struck: tuple[Path, list[chaos.Fault]]):
    folder, _ = struck
    run = chaos.Run(chaos.recipe.load(str(next(folder.glob("*-plain")) / "run")))
    before = chaos.digest(run)
    shard = next(run.folder("shards").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    journal.parts(run.folder("score"))[0].unlink()
    changed = {name for name, value in chaos.digest(run).items() if value != before[name]}
    assert changed == {"score", f"shards/{shard.name}"}
