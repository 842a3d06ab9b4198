"""The templates of the browser and the report, and their helpers; everything is escaped except our own SVG."""

from __future__ import annotations

import time
from pathlib import Path

import jinja2

from crispedit.cascade import REGIME
from crispedit.pipelines.viewing import charts, overview, queries
from crispedit.pipelines.viewing.snapshot import Snapshot

FOLDER = Path(__file__).parent / "pages"


def environment() -> jinja2.Environment:
    """The templates of `pages/`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": queries.short, "plain": plain}
    environment.globals |= {
        "charts": charts,
        "in_words": overview.in_words,
        "bound_names": bound_names,
        "REGIME": REGIME,
        "clock": lambda then: time.strftime("%H:%M:%S", time.localtime(then)),
    }
    return environment


def plain(value: float | None) -> str:
    """A bound in full precision."""
    return "" if value is None else str(int(value)) if value.is_integer() else repr(value)


def bound_names(s: Snapshot, score: str, category: str = "", regime: str = "") -> list[charts.NamedBound]:
    """The lines in a histogram of a score: the bounds of one category (and its regimes), or of all, named by
    category."""
    cells = [cell for cell in s.cells if category in (cell[0], "") and (not regime or cell[1] == regime)]
    if regime and not cells:
        cells = [(name, "") for name in s.categories if category in (name, "")]
    lines = charts.bounds_of([(c + (f" ({r})" if r else ""), s.bound(score, c, r)) for c, r in cells])
    everyone = ", ".join(s.categories)
    return [(side, value, "all categories" if names == everyone else names) for side, value, names in lines]
