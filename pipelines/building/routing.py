"""Routing: which editor makes a job's candidate where `edit.share` is "measured" (docs/editors.md).

The shares of a wave depend on all waves at least `LAG` before it, so they do not depend on timing. They are recorded
with the wave before its first edit, and the record then counts. Measured seconds are not used, because they differ
between clusters: a candidate's cost is declared (`price`).
"""

from collections.abc import Iterable, Mapping, Sequence

from crispedit.pipelines.recipe import EditSpec
from crispedit.record import seed_of

LAG = 4
"""The number of waves just before a wave that do not count for it. A wave waits until all earlier ones are finished."""
LEAST_MEASURED = 20
"""With fewer measured candidates of any editor in a category, all editors have equal shares of it."""

Counts = dict[str, dict[str, list[int]]]
"""By category and editor: [measured candidates, those of them that pass]."""
Shares = dict[str, dict[str, float]]
"""By category and editor: the share of the jobs."""


def shares(
    edit: EditSpec, categories: Iterable[str], waves: Sequence[Mapping[str, Mapping[str, Sequence[int]]]]
) -> Shares:
    """The shares by these waves' counts: in each category `least_share` for every editor, and the rest for the one with
    the most passing candidates per price. Equal shares while too little is measured."""
    names = [name for name, spec in edit.editors.items() if spec.when == "always"]
    shares_of: Shares = {}
    for category in categories:
        measured, passing = (
            {name: sum(wave.get(category, {}).get(name, (0, 0))[at] for wave in waves) for name in names}
            for at in (0, 1)
        )
        if min(measured.values()) < LEAST_MEASURED:
            shares_of[category] = dict.fromkeys(names, 1 / len(names))
            continue
        worth = {n: passing[n] / measured[n] / (edit.editors[n].price or 1.0) for n in names}
        best = max(names, key=lambda name: worth[name])  # among equals the first
        rest = 1 - edit.least_share * (len(names) - 1)
        shares_of[category] = {name: rest if name == best else edit.least_share for name in names}
    return shares_of


def editor_of(job: str, of: Mapping[str, float]) -> str:
    """The editor of a job, determined by its key."""
    at, last = seed_of(job, "editor") / 2**63, ""
    for name, share in of.items():
        last = name
        if at < share:
            return name
        at -= share
    return last
