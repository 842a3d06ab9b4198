"""Routing: which editor makes a job's candidate where `edit.share` is "measured" (docs/editors.md).

The shares of a wave follow from the finished waves at least `LAG` before it, whose number does not depend on which
waves happen to be finished; they are recorded with the wave before its first edit, and the record is the truth from
then on. Seconds and GPU-seconds do not enter, because no two clusters measure the same: what a candidate costs is
declared (`price`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from crispedit.pipelines.recipe import EditSpec
from crispedit.record import seed_of

LAG = 4
"""The last waves before a wave that do not count for it. A wave waits until those before them are finished."""
LEAST_MEASURED = 20
"""Candidates of each editor in a category without which all editors have equal shares of it."""

Counts = dict[str, dict[str, list[int]]]
"""By category and editor: [measured candidates, those of them that pass]."""
Shares = dict[str, dict[str, float]]
"""By category and editor: the share of the jobs."""


def routed(edit: EditSpec) -> list[str]:
    """The editors that share the jobs; one for failed jobs takes what they leave."""
    return [name for name, spec in edit.editors.items() if spec.when == "always"]


def shares(
    edit: EditSpec, categories: Iterable[str], waves: Sequence[Mapping[str, Mapping[str, Sequence[int]]]]
) -> Shares:
    """The shares that follow from these waves' counts: in each category `least_share` for every editor, and the rest
    for the one with the most passing candidates per price. Equal ones while too little is known."""
    names = routed(edit)
    found: Shares = {}
    for category in categories:
        measured, passing = (
            {name: sum(wave.get(category, {}).get(name, (0, 0))[at] for wave in waves) for name in names}
            for at in (0, 1)
        )
        if min(measured.values()) < LEAST_MEASURED:
            found[category] = dict.fromkeys(names, 1 / len(names))
            continue
        worth = {n: passing[n] / measured[n] / (edit.editors[n].price or 1.0) for n in names}
        best = max(names, key=lambda name: worth[name])  # among equals the first
        rest = 1 - edit.least_share * (len(names) - 1)
        found[category] = {name: rest if name == best else edit.least_share for name in names}
    return found


def editor_of(job: str, of: Mapping[str, float]) -> str:
    """The editor of a job, by its key: the same whenever and wherever it is asked for."""
    at, last = seed_of(job, "editor") / 2**63, ""
    for name, share in of.items():
        last = name
        if at < share:
            return name
        at -= share
    return last
