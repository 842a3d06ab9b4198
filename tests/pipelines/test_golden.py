"""The golden shards: the same rows and bytes make the same tars, in this version and the next."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "goldens"))

import pytest
from regenerate import GOLDEN, golden_run, hashes

from crispedit.pipelines.steps import pack, select


def test_shards_are_byte_for_byte_those_of_the_golden_run(tmp_path: Path):
    assert hashes(golden_run(tmp_path / "run")) == json.loads(GOLDEN.read_text())


def test_a_plan_in_pieces_has_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = golden_run(tmp_path / "run")
    selection = run.folder("select") / select.SELECTION
    whole = list(pack.planned(run, selection))
    monkeypatch.setattr(pack, "TOGETHER", 3)  # shards have one pair or two
    assert [shard.to_pylist() for shard in pack.planned(run, selection)] == [s.to_pylist() for s in whole]
    assert len(whole) > 2
