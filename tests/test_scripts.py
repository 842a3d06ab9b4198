"""Every benchmark and script starts: its imports exist, and `--help` says what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

START_ALL = """
import importlib, io, runpy, sys
from contextlib import redirect_stdout
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    with redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_module(name, run_name="__main__")
        except SystemExit as end:
            assert not end.code, f"{name} ends with {end.code}"
        else:
            raise AssertionError(f"{name} took --help for work")
    assert len(said.getvalue()) > 80, f"{name} says nothing about itself"
"""
"""One process for all: importing torch once is most of the time."""


def scripts() -> list[str]:
    """The modules that are run as commands: those of benchmarks and pipelines with a `__main__` part."""
    paths = [path for folder in ("benchmarks", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))]
    commands = [path for path in paths if '__name__ == "__main__"' in path.read_text()]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in commands]
    return [name if name.startswith("benchmarks.") else f"crispedit.{name}" for name in names]


def test_every_script_starts():
    names = scripts()
    assert len(names) > 15
    done = subprocess.run(
        [sys.executable, "-c", START_ALL, *names], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_the_sampling_benchmark_gives_the_tokens_of_the_specification():
    """A short run of the benchmark itself, which compares every token with the loop written from the specification."""
    options = "--rounds 1 --steps 2 --case 32x32 --no-memory --threads 1".split()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.editmgt", *options], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "x faster" in done.stdout or "faster" in done.stdout
