"""Repairing: edits of our own editors are realigned with their source and freed of drift, if a recipe asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import make_run

from crispedit.pipelines import audit, build, tables
from crispedit.pipelines.run import Run

EDITOR = '''"""Loose: the compositor's edits, zoomed, moved and tinted as image APIs return them."""
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from crispedit.editors.compositor import CompositorEditor
from crispedit.record import Edit


class Loose(CompositorEditor):
    def edit(self, sources: Sequence, jobs: Sequence, seeds: Sequence) -> list:
        return [spoiled(edit) if isinstance(edit, Edit) else edit for edit in super().edit(sources, jobs, seeds)]


def spoiled(edit):
    height, width = edit.edited.shape[:2]
    affine = np.array([[1.012, 0, 5.0], [0, 1.012, -4.0]])
    moved = cv2.warpAffine(
        edit.edited, affine, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return replace(edit, edited=np.clip(moved.astype(float) * [0.95, 0.9, 0.85] + 12, 0, 255).astype(np.uint8))
'''


FILTERS = ("filters.regeneration={}", "filters.exposure={}", "score.measure_everything=true")


@pytest.fixture
def built(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "__init__.py").touch()
    (tmp_path / "loose" / "editor.py").write_text(EDITOR)
    monkeypatch.syspath_prepend(str(tmp_path))

    def build_(name: str, *overrides: str) -> Run:
        editors = "edit.editors={loose: {editor: loose.editor}}"
        run = make_run(tmp_path / name, photos, "categories={add: 1, style: 1}", editors, *FILTERS, *overrides)
        build.build(run)
        return run

    return build_


def rows(run: Run) -> list[dict]:
    found = tables.connect(run).sql("SELECT category, transform, drift, composed, width FROM candidate ORDER BY key")
    return found.to_arrow_table().to_pylist()


def test_edits_of_our_own_editors_are_repaired_where_that_is_asked(built):
    plain = built("plain")
    repaired = built("repaired", "edit.repair=true", "edit.repair_drift=true")
    assert all(row["transform"] is row["drift"] is None for row in rows(plain))
    added = [row for row in rows(repaired) if row["category"] == "add"]
    laid = [row for row in added if row["composed"]]  # both images are cropped, so the source is a new one
    assert len(laid) >= len(added) / 2
    for row in laid:
        assert json.loads(row["transform"])[0][0] == pytest.approx(1.012, abs=0.002)
        if row["drift"] is not None:
            # Where a picture has few levels of a channel, many lines fit: what counts is where they lead.
            tone = json.loads(row["drift"])
            grey = [gain * 120 + offset for gain, offset in zip(tone["gain"], tone["offset"], strict=True)]
            assert grey == pytest.approx([0.95 * 120 + 12, 0.9 * 120 + 12, 0.85 * 120 + 12], abs=4)
    assert any(row["drift"] for row in laid)
    # The tone of a style is its edit.
    assert not any(row["drift"] for row in rows(repaired) if row["category"] == "style")

    before, after = audit.audit(plain), audit.audit(repaired)
    assert (before.repaired, before.restored) == (None, None)
    assert after.repaired["realigned"] >= len(laid)
    assert after.restored == sum(row["drift"] is not None for row in rows(repaired))
    lines = [next(line for line in report.moved if line.category == "add") for report in (before, after)]
    moved = [line.scores["alignment.displacement_px"][0] for line in lines]
    assert moved[0] > 4
    assert moved[1] < 1
    assert sum(lines[1].regimes.values()) == lines[1].pairs == len(added)
    assert "loose" in audit.moved_text(after.moved)
    card = (repaired.folder("shards") / "README.md").read_text()
    assert "a drift of tone was removed" in card
