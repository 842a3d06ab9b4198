"""Report: an evaluation's boards as Markdown, CSV and LaTeX. Figures from papers are shown in the same tables, with
protocol and source, but are never ranked. The templates are in `pages/`."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

Json = dict[str, Any]
Boards = Mapping[str, Mapping[str, Json]]
COUNTS = ("cases", "scored", "missing", "black", "unparsed")
COLUMNS = ("benchmark", "protocol", "editor", "group", "metric", "mean", "low", "high", "n", "rank", "source")
"""The columns of the CSV."""


def markdown(boards: Boards, level: float, cost: Mapping[str, Json] | None = None) -> str:
    """The page of every benchmark's protocols. level: the intervals' confidence level, such as 0.95."""
    return template("report.md.jinja", cell).render(boards=boards, level=level, cost=cost)


def latex(boards: Boards, level: float) -> str:
    """A booktabs table for each protocol; figures from papers below a rule, with their protocol and source."""
    return template("report.tex.jinja", _tex).render(boards=boards, level=level).rstrip("\n") + "\n"


def table_csv(boards: Boards) -> str:
    """Every figure as a row: benchmark, protocol, editor, group (empty: overall), metric, mean, low, high, n, rank."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_figures(boards))
    return out.getvalue()


def _figures(boards: Boards) -> Iterator[Json]:
    for benchmark, protocols in boards.items():
        for protocol, board in protocols.items():
            where = {"benchmark": benchmark, "protocol": protocol}
            yield from (where | row for row in (_rated(board) if board.get("pairwise") else _scored(board)))
            for row in board["published"]:
                source = where | {"protocol": row["protocol"], "editor": row["model"], "source": row["source"]}
                for metric, value in row["values"].items():
                    yield source | {"metric": metric, "mean": value}


def _scored(board: Json) -> Iterator[Json]:
    for editor, row in board["rows"].items():
        for metric, figure in row["metrics"].items():
            yield _plain(figure) | {"editor": editor, "metric": metric, "rank": board["ranks"][metric].get(editor)}
        for group, figures in (("(missing counted)", row["with_missing"] or {}), *row["groups"].items()):
            for metric, figure in figures.items():
                name = board["labels"].get(group, {}).get(metric, metric)
                yield _plain(figure) | {"editor": editor, "group": group, "metric": name}


def _rated(board: Json) -> Iterator[Json]:
    for group, ratings in [("", board["ratings"]), *board["groups"].items()]:
        for editor, rating in ratings.items():
            figure = rating | {"mean": rating["elo"], "n": rating["matches"]}
            yield _plain(figure) | {"editor": editor, "group": group, "metric": "elo"}


def _plain(figure: Json) -> Json:
    return {name: figure[name] for name in ("mean", "low", "high", "n")}


# The templates' filters


def template(name: str, escape: Callable[[str], str]) -> jinja2.Template:
    """A template of `pages/` that escapes every value, except what is marked as safe."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape(str(value))),
    )
    filters = (_shown, _compared, _groups, _best, _notes, estimate, number, _rating, _p, _tex_estimate, _tex_number)
    environment.filters |= {function.__name__.strip("_"): function for function in filters}
    environment.globals["counts"] = COUNTS
    return environment.get_template(name)


def _shown(board: Json) -> list[str]:
    """The metrics with any known value."""
    return [
        metric
        for metric in board["metrics"]
        if any(row["metrics"][metric]["n"] for row in board["rows"].values())
        or any(metric in row["values"] for row in board["published"])
    ]


def _compared(board: Json) -> list[str]:
    """The metrics with any known difference."""
    differences = [row["metrics"] for row in board["differences"]]
    return [metric for metric in _shown(board) if any(metrics[metric]["n"] for metrics in differences)]


def _groups(board: Json) -> list[str]:
    return sorted({group for row in board["rows"].values() for group in row["groups"]})


def _best(board: Json, metric: str, editor: str) -> bool:
    ranks = board["ranks"].get(metric, {})
    return len(ranks) > 1 and ranks.get(editor) == 1


def _notes(board: Json) -> list[str]:
    """Sentences on null metrics, models, the judge's settings, and what has no score."""
    notes = [f"{metric} is null: {reason}" for metric, reason in board["null"].items()]
    for role, models in board["models"].items():
        if models["used"] is not None:
            published = f"; published with {models['published']}" if models["published"] else ""
            notes.append(f"{role}: {models['used']}{published}")
    if board["request"]:
        notes.append("asked: " + ", ".join(f"{name} {value}" for name, value in board["request"].items()))
    for editor, row in board.get("rows", {}).items():
        notes += [f"{editor}, {count} without a score: {reason}" for reason, count in row["reasons"].items()]
        errors = {figure["error"] for figure in row["metrics"].values() if "error" in figure}
        notes += [f"{editor} has no overall figure: {error}" for error in sorted(errors)]
        if row["with_missing"] is not None:
            notes.append(
                f"{editor}, missing counted: a missing or refused answer counts as the source, or as the worst value "
                "where copying the source is perfect"
            )
    return notes + [f"{n} without a verdict: {reason}" for reason, n in board.get("reasons", {}).items()]


def estimate(figure: Json, cases: int | None = None) -> str:
    """The mean and its interval, and the number of cases if some are unknown."""
    if figure["mean"] is None:
        return "–"
    text = number(figure["mean"])
    if figure["low"] is not None:
        text += f" [{number(figure['low'])}, {number(figure['high'])}]"
    return text if cases is None or figure["n"] == cases else f"{text} of {figure['n']}"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _rating(rating: Json | None) -> str:
    if rating is None:
        return "–"
    text = f"{rating['elo']:.0f}"
    return text if rating["low"] is None else f"{text} [{rating['low']:.0f}, {rating['high']:.0f}]"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _tex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}", "−": "--"}
    special |= {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    return "".join(special.get(letter, letter) for letter in text)


def _tex_estimate(figure: Json, best: bool = False) -> Markup:
    """A mean and its interval, or a rating and its interval."""
    mean = figure["elo"] if "elo" in figure else figure["mean"]
    text = f"\\textbf{{{_tex_number(mean)}}}" if best and mean is not None else _tex_number(mean)
    if mean is None or figure["low"] is None:
        return Markup(text)
    low, high = _tex_number(figure["low"]), _tex_number(figure["high"])
    return Markup(f"{text} {{\\scriptsize [{low}, {high}]}}")


def _tex_number(value: float | None) -> Markup:
    return Markup("--" if value is None else number(value).replace("-", "$-$"))
