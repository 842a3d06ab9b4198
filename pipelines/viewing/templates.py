"""The templates of the browser and the report, and their helpers; everything is escaped."""

import time
from pathlib import Path

import jinja2

from crispedit.cascade import REGIME
from crispedit.pipelines.viewing import charts, overview, queries

FOLDER = Path(__file__).parent / "pages"


def environment() -> jinja2.Environment:
    """The templates of `pages/`, for the browser and the report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": queries.short, "plain": _plain, "px": lambda pixels: f"{pixels:.1f}"}
    environment.globals |= {
        "queries": queries,
        "in_words": overview.in_words,
        "bound_names": charts.bound_names,
        "lines": charts.lines,
        "REGIME": REGIME,
        "clock": lambda then: time.strftime("%H:%M:%S", time.localtime(then)),
    }
    return environment


def _plain(value: float | None) -> str:
    """A bound in full precision."""
    return "" if value is None else str(int(value)) if value.is_integer() else repr(value)
