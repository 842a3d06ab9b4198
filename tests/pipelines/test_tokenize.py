"""Tokenising on a cluster: the bytes of one process, whatever was there before, and no waiting for what cannot come."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch
from conftest import killed_at_its_second
from training_pairs import recipe_file, write_set

from crispedit.pipelines import cli
from crispedit.shards import layout


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_actors_finish_what_a_killed_process_began(
    tmp_path: Path, ray_nodes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which is what Ray gives an actor of one CPU
    torch.set_num_threads(1)
    shards, alone, shared = write_set(tmp_path / "shards"), tmp_path / "alone", tmp_path / "shared"
    command = ["tokenize", str(shards), "OUT", "--recipe", str(recipe_file(tmp_path, shards))]
    alone_command, shared_command = ([*command[:2], str(out), *command[3:]] for out in (alone, shared))

    killed_at_its_second(rf"{layout.PARTS}/.*\.parquet$", *shared_command)
    began = {path: path.stat().st_mtime_ns for path in shared.glob(f"{layout.PARTS}/*.parquet")}
    assert began
    assert not (shared / layout.MANIFEST).exists()
    assert cli.main(["train", str(recipe_file(tmp_path, shared, "early"))]) == 2
    assert layout.MANIFEST in capsys.readouterr().err

    assert cli.main([*shared_command, "--actors", "2"]) == 0
    assert {path: path.stat().st_mtime_ns for path in began} == began
    assert cli.main(alone_command) == 0
    assert files(shared) == files(alone)

    assert cli.main([*shared_command, "--actors", "5"]) == 2
    assert "--actors 5: they need 5 CPU, and the cluster has 4" in capsys.readouterr().err
    assert cli.main([*shared_command, "--actors", "1", "--gpus", "1"]) == 2
    assert "they need 1 GPU, and the cluster has 0" in capsys.readouterr().err


def test_a_set_in_a_store_is_tokenised_into_the_store(tmp_path: Path):
    store = fsspec.filesystem("memory")
    shards = write_set(tmp_path / "shards")
    store.put(str(shards), "/tokenize/set", recursive=True)
    command = ["tokenize", str(shards), str(tmp_path / "out"), "--recipe", str(recipe_file(tmp_path, shards))]
    assert cli.main(command) == 0
    assert cli.main([command[0], "memory://tokenize/set", "memory://tokenize/out", *command[3:]]) == 0
    made = {name.removeprefix("/tokenize/out/"): store.cat(name) for name in store.find("/tokenize/out")}
    assert made == files(tmp_path / "out")
    assert cli.main([command[0], "memory://tokenize/set", "memory://tokenize/set", *command[3:]]) == 2
    store.rm("/tokenize", recursive=True)
