"""A sample of `python -m benchmarks.mutations`: a changed comparison in what decides is noticed by a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

from benchmarks.mutations import mutants  # noqa: E402 - found in the checkout


def test_mutants_of_a_line():
    made = [change for _, change, _ in mutants("x = a < 1 and n + 1 == m - 2")]
    assert made == [
        "a < 1 and n + 1 == m - 2  ->  a < 1 or n + 1 == m - 2",
        "a < 1  ->  a <= 1",
        "n + 1 == m - 2  ->  n + 1 != m - 2",
        "n + 1  ->  n - 1",
    ]
    [(line, change, code)] = mutants("\nkept = score > 3")
    assert (line, change) == (2, "score > 3  ->  score >= 3")
    names = {"score": 3}
    exec(code, names)
    assert names["kept"]


def test_a_test_notices_each_mutant_of_the_sample(tmp_path: Path):
    files = ["crispedit/cascade.py", "filters/resolution.py"]
    command = [sys.executable, "-m", "benchmarks.mutations", *files, "--sample", "2", "--json", "found.json"]
    command[-1] = str(tmp_path / command[-1])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert {file: entry["unnoticed"] for file, entry in found.items()} == {file: [] for file in files}
    assert sum(entry["mutants"] for entry in found.values()) == 4
