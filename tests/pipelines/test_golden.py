"""The golden shards: the same rows and bytes make the same tars, in this version and the next."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "goldens"))

from regenerate import GOLDEN, golden_run, hashes


def test_shards_are_byte_for_byte_those_of_the_golden_run(tmp_path: Path):
    assert hashes(golden_run(tmp_path / "run")) == json.loads(GOLDEN.read_text())
