"""The demo: each stage is explained in a line, its commands are the command line's, and its threads are bounded."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from crispedit import machine
from crispedit.pipelines import cli, demo


def test_each_stage_is_explained_and_its_command_exists():
    stages = demo.stages("photographs", "held-out", Path("my runs/demo"))
    assert [line.split()[0] for _, line in stages] == ["build", "audit", "build", "train", "evaluate"]
    for text, line in stages:
        assert "\n" not in text
        assert len(text) <= 110
        words = shlex.split(line)
        whole, _ = cli.parser_of(words[0])
        whole.parse_args(words)


@pytest.mark.parametrize(("load", "threads"), [(0.0, machine.cores()), (50.0, 1)])
def test_threads_leave_busy_cores_alone(monkeypatch: pytest.MonkeyPatch, load: float, threads: int):
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    assert demo.environment()["OMP_NUM_THREADS"] == str(threads)
