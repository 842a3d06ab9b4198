"""Both images of a packed pair have one size: whatever pack writes is accepted, shown, exported and read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import HEIGHT, WIDTH
from test_imported import edited, jpeg, outcomes, refiltered, write_pairs

from crispedit.compositor.landscape import landscape
from crispedit.pipelines import cli
from crispedit.shards.read import ShardReader


def test_pairs_of_any_two_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    rows, fit = [], []
    for number in range(10):
        source = landscape(number, WIDTH, HEIGHT)
        scale = rng.uniform(0.62, 1.6)
        size = [round(WIDTH * scale), round(HEIGHT * scale)]
        if number % 3 == 2:
            size[0] = round(size[0] * rng.choice([0.7, 0.97, 1.04, 1.3]))
        fit.append(number % 3 != 2)
        other = cv2.resize(edited(source), size, interpolation=cv2.INTER_AREA)
        rows.append(
            {"input_img": jpeg(source), "output_img": jpeg(other), "instruction": "Add a red ball.", "type": "add"}
        )
    write_pairs(tmp_path / "data", rows)
    # No filter but one: that the sizes fit is no matter of filters.
    others = (
        "resolution region direction alignment preservation sharpness artefacts exposure patches watermark_text"
    ).split()
    run = refiltered(tmp_path, tmp_path / "data", *(f"filters.{name}=null" for name in others))
    found = outcomes(run)
    assert [found[str(number)] for number in range(10)] == [
        ("kept", None) if fits else ("rejected", "sizes_differ") for fits in fit
    ]
    shards = str(run.folder("shards"))
    assert cli.main(["verify", shards, "--deep"]) == 0
    assert cli.main(["inspect", shards, "--output", str(tmp_path / "sheet.jpg")]) == 0
    for layout in ("parquet", "hf", "folder", "released"):
        assert cli.main(["export", shards, "--to", layout, "--output", str(tmp_path / layout)]) == 0
    pairs = list(ShardReader(shards))
    assert len(pairs) == sum(fit)
    for pair in pairs:
        assert pair.source.shape == pair.edited.shape == (HEIGHT, WIDTH, 3)
        assert (pair.meta["width"], pair.meta["height"]) == (WIDTH, HEIGHT)
        assert "resampled_from" in pair.meta
    capsys.readouterr()
