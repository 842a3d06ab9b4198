"""The compositor's editor with faults, for the recipes of `benchmarks.chaos`.

The fault is set by files, so that the recipe, its fingerprint and all other parts stay the same. In the folder that the
environment variable CHAOS names, `fault` holds the kind and how often it happens, `pause` the seconds for each edit.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from crispedit.editors.compositor import CompositorEditor
from crispedit.record import Edit, Image, Job, Refusal

KINDS = ("raises", "no connection", "out of memory", "exits", "crashes", "hangs", "answers too little")


class Disturbed(CompositorEditor):
    """Edits like the compositor, unless a fault is set."""

    def edit(self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]) -> list[Edit | Refusal]:
        folder = Path(os.environ["CHAOS"])
        time.sleep(float((folder / "pause").read_text()) * len(jobs))
        kind, _, times = (folder / "fault").read_text().partition(" x ")
        if kind and claim(folder, int(times)):
            strike(kind)
            if kind == "answers too little":
                return []
        return super().edit(sources, jobs, seeds)


def claim(folder: Path, times: int) -> bool:
    """Whether this call is among the first `times` of all processes."""
    for number in range(times):
        try:
            (folder / f"struck-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def strike(kind: str) -> None:
    if kind == "raises":
        raise ValueError("the editor is broken")
    if kind == "no connection":
        raise ConnectionResetError("the editor's server has gone")
    if kind == "out of memory":
        raise MemoryError("the editor needs more")
    if kind == "exits":
        os._exit(1)
    if kind == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "hangs":
        time.sleep(3600)
