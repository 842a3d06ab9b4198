"""The same run on Ray Train: two workers on a cluster give the curve of one process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from training_pairs import losses, recipe_file, write_set

from crispedit.pipelines import cli


def test_two_workers_give_the_curve_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shards = write_set(tmp_path / "shards")
    alone = recipe_file(tmp_path, shards, "alone")
    assert cli.main(["train", str(alone)]) == 0
    together = recipe_file(tmp_path, shards, "together")
    workers = ["ray.workers=2", "ray.gpus=0", f"ray.cpus={min(1.0, (os.cpu_count() or 1) / 4)}"]
    assert cli.main(["train", str(together), *workers]) == 0
    assert losses(tmp_path / "together") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    assert (tmp_path / "together" / "model" / "model_index.json").is_file()
    capsys.readouterr()
    assert cli.main(["train", str(together), "ray.workers=999", "ray.gpus=0", "ray.cpus=1"]) == 2
    assert "ray.workers 999: they need 999 CPU, and the cluster has" in capsys.readouterr().err
