"""docs/python.md runs as it is written, and `import crispedit` gives what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documents import blocks

import crispedit


def test_the_page_runs_from_top_to_bottom(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    small = ["curate.filters.resolution.bounds.short_side_px.min=1", "filters.resolution=null"]
    names: dict[str, Any] = {}
    for block in blocks("docs/python.md", "python"):
        # The test's photographs are small.
        exec(block.replace('"engine.kind=inprocess"', f'"engine.kind=inprocess", *{small!r}'), names)
    said = capsys.readouterr().out
    assert "color" in said
    assert "changed_fraction" in said
    assert len(list(names["read_shards"](names["run"].shards))) >= 2


def test_public_names_are_loaded_when_asked_for():
    code = (
        "import sys, crispedit\n"
        "before = {'pyarrow', 'duckdb', 'numpy'} & sys.modules.keys()\n"
        "from crispedit import classify\n"
        "assert not before and 'numpy' in sys.modules and 'duckdb' not in sys.modules, before"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    assert all(callable(getattr(crispedit, name)) for name in crispedit.PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = crispedit.biuld
