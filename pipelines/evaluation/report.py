"""Report: an evaluation's boards as Markdown, CSV and LaTeX. Figures from papers are shown in the same tables, with
protocol and source, but are never ranked."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Boards = Mapping[str, Mapping[str, Json]]
COUNTS = ("cases", "scored", "missing", "black", "unparsed")


def markdown(boards: Boards, level: float, cost: Mapping[str, Json] | None = None) -> str:
    """The page of every benchmark's protocols."""
    lines = [
        "# Evaluation",
        "",
        f"Means with {level:.0%} intervals over families of cases. ↓: less is better, ↑: more; – is not known, never "
        "zero. Bold: the best editor. *Italic*: figures of papers, under the protocol that they name.",
    ]
    for benchmark, protocols in boards.items():
        for protocol, board in protocols.items():
            lines += ["", f"## {benchmark}: {protocol}", "", _sentence(board["about"]), ""]
            lines += _pairwise(board) if board.get("pairwise") else _pointwise(board)
            if "humans" in board:
                lines += ["", *_humans(board["humans"])]
    if cost:
        lines += ["", "## Cost", "", *_cost(cost)]
    return "\n".join(lines) + "\n"


def _pointwise(board: Json) -> list[str]:
    lines = [*_main(board), *_notes(board)]
    groups = _groups(board)
    if len(groups) > 1:
        lines += ["", f"By kind of edit, {_arrow(board, board['headline'])}:", "", *_grouped(board)]
    for group, names in board["labels"].items():
        if group in groups:
            lines += ["", f"{group}, as its prompt names the marks:", "", *_labelled(board, group, names)]
    if board["differences"]:
        lines += [
            "",
            "Differences, on the cases that both answered (p is corrected for their number by Holm's method):",
        ]
        lines += ["", *_differing(board)]
    if any(row["seeds"] > 1 or row["judgements"] > 1 for row in board["rows"].values()):
        lines += ["", "Variance of one value, by source:", "", *_varying(board)]
    return lines


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _shown(board: Json) -> list[str]:
    """The metrics with any known value."""
    return [
        metric
        for metric in board["metrics"]
        if any(row["metrics"][metric]["n"] for row in board["rows"].values())
        or any(metric in row["values"] for row in board["published"])
    ]


def _best(board: Json, metric: str, editor: str) -> bool:
    ranks = board["ranks"].get(metric, {})
    return len(ranks) > 1 and ranks.get(editor) == 1


def _main(board: Json) -> list[str]:
    shown, published = _shown(board), board["published"]
    rank = f"rank by {board['headline']}"
    head = [
        "",
        *COUNTS,
        *(_arrow(board, m) for m in shown),
        rank,
        *(["protocol, source"] if published else []),
    ]
    more = [""] if published else []
    body = []
    for editor, row in board["rows"].items():
        cells = [_bold(estimate(row["metrics"][m], row["cases"]), _best(board, m, editor)) for m in shown]
        place = board["ranks"][board["headline"]].get(editor)
        counts = (str(row[count]) for count in COUNTS)
        body.append([editor, *counts, *cells, "" if place is None else str(place), *more])
        if row["with_missing"] is not None:
            filled = [estimate(row["with_missing"][m]) for m in shown]
            body.append([f"{editor}, missing counted", *[""] * len(COUNTS), *filled, "", *more])
    for row in published:
        figures = [_italic(number(row["values"].get(m))) for m in shown]
        source = f"{row['protocol']}; {row['source']}"
        body.append([_italic(row["model"]), *[""] * len(COUNTS), *figures, "", source])
    return table(head, body)


def _notes(board: Json) -> list[str]:
    notes = [f"{metric} is null: {reason}" for metric, reason in board["null"].items()]
    for role, models in board["models"].items():
        if models["used"] is not None:
            with_ = f"; published with {models['published']}" if models["published"] else ""
            notes.append(f"{role}: {models['used']}{with_}")
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
    notes += [f"{count} without a verdict: {reason}" for reason, count in board.get("reasons", {}).items()]
    return ["", *(f"- {_cell(note)}" for note in notes)] if notes else []


def _groups(board: Json) -> list[str]:
    return sorted({group for row in board["rows"].values() for group in row["groups"]})


def _grouped(board: Json) -> list[str]:
    metric, groups = board["headline"], _groups(board)
    body = [
        [editor, *(estimate(row["groups"][group][metric]) for group in groups)]
        for editor, row in board["rows"].items()
    ]
    return table(["", *groups], body)


def _labelled(board: Json, group: str, names: Mapping[str, str]) -> list[str]:
    body = [
        [editor, *(estimate(row["groups"][group][metric]) for metric in names)]
        for editor, row in board["rows"].items()
    ]
    return table(["", *names.values()], body)


def _differing(board: Json) -> list[str]:
    shown = [m for m in _shown(board) if any(row["metrics"][m]["n"] for row in board["differences"])]
    body = []
    for row in board["differences"]:
        cells = []
        for metric in shown:
            figure = row["metrics"][metric]
            won = f"{figure['wins']}/{figure['ties']}/{figure['losses']}"
            cells.append(f"{estimate(figure)}, p {_p(figure['p_corrected'])}, {won}" if figure["n"] else "–")
        body.append([f"{row['editor']} − {row['minus']}", *cells])
    return table(["wins/ties/losses", *(_arrow(board, metric) for metric in shown)], body)


def _varying(board: Json) -> list[str]:
    metric = board["headline"]
    body = []
    for editor, row in board["rows"].items():
        variances = row["variances"][metric]
        means = ", ".join(map(number, variances["mean_by_seed"] or []))
        parts = [number(variances[source]) for source in ("cases", "seeds", "judgements")]
        body.append([editor, *parts, means or "–"])
    return table([_arrow(board, metric), "cases", "seeds", "judgements", "mean by seed"], body)


def _pairwise(board: Json) -> list[str]:
    dimensions = list(board["dimensions"])
    players = sorted(board["ratings"], key=lambda name: -board["ratings"][name]["elo"])
    head = ["", "rank", "rating", *dimensions, "matches"]
    body = []
    for place, name in enumerate(players):
        apart = [_rating(board["dimensions"][d].get(name)) for d in dimensions]
        whole = board["ratings"][name]
        rating = _bold(_rating(whole), place == 0 and len(players) > 1)
        body.append([name, str(place + 1), rating, *apart, str(whole["matches"])])
    lines = table(head, body) + _notes(board)
    if board["pairs"]:
        rows = [
            [
                f"{r['editor']} against {r['against']}",
                str(r["wins"]),
                str(r["ties"]),
                str(r["losses"]),
                _p(r["p_corrected"]),
            ]
            for r in board["pairs"]
        ]
        lines += ["", *table(["", "wins", "ties", "losses", "p, corrected"], rows)]
    position = board["position"]
    if position["n"]:
        lines += [
            "",
            f"Of {position['n']} pairs shown in both orders the judge agreed with itself in "
            f"{position['orders_agree']:.0%}; it preferred what it saw first in {_share(position['first_preferred'])} "
            "of its decisions.",
        ]
    return lines


def _humans(agreement: Json) -> list[str]:
    lines = [f"Agreement with people ({agreement['source']}):", ""]
    body = [
        [name, str(row["n"]), estimate(row["agreement"]), number(row["kappa"])]
        for name, row in [("all", agreement["all"]), *agreement["categories"].items()]
    ]
    return lines + table(["", "preferences", "agreement", "kappa"], body)


def _cost(cost: Mapping[str, Json]) -> list[str]:
    body = []
    for benchmark, spent in cost.items():
        seconds = ", ".join(f"{name} {value:.2f}" for name, value in spent["seconds_per_edit"].items()) or "–"
        price = "–" if spent["price"] is None else f"{spent['price']:.2f} {spent['currency']}"
        names = ("asked", "kept", "prompt_tokens", "answer_tokens")
        numbers = ["–" if spent[name] is None else str(spent[name]) for name in names]
        body.append([benchmark, seconds, *numbers, price])
    head = [
        "",
        "seconds per edit",
        "questions",
        "replies kept before",
        "prompt tokens",
        "answer tokens",
        "price",
    ]
    return table(head, body)


# CSV


def table_csv(boards: Boards) -> str:
    """Every figure as a row: benchmark, protocol, editor, group (empty: overall), metric, mean, low, high, n, rank."""
    out = io.StringIO()
    names = (
        "benchmark",
        "protocol",
        "editor",
        "group",
        "metric",
        "mean",
        "low",
        "high",
        "n",
        "rank",
        "source",
    )
    writer = csv.DictWriter(out, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_figures(boards))
    return out.getvalue()


def _figures(boards: Boards) -> Iterator[Json]:
    for benchmark, protocols in boards.items():
        for protocol, board in protocols.items():
            where = {"benchmark": benchmark, "protocol": protocol}
            yield from (
                {**where, **row} for row in (_rated(board) if board.get("pairwise") else _scored(board))
            )
            for row in board["published"]:
                for metric, value in row["values"].items():
                    yield (
                        where
                        | {"protocol": row["protocol"], "editor": row["model"], "metric": metric}
                        | {
                            "mean": value,
                            "source": row["source"],
                        }
                    )


def _scored(board: Json) -> Iterator[Json]:
    for editor, row in board["rows"].items():
        for metric, figure in row["metrics"].items():
            rank = board["ranks"][metric].get(editor)
            yield {"editor": editor, "metric": metric, "rank": rank, **_plain(figure)}
        for metric, figure in (row["with_missing"] or {}).items():
            yield {"editor": editor, "group": "(missing counted)", "metric": metric, **_plain(figure)}
        for group, figures in row["groups"].items():
            for metric, figure in figures.items():
                name = board["labels"].get(group, {}).get(metric, metric)
                yield {"editor": editor, "group": group, "metric": name, **_plain(figure)}


def _rated(board: Json) -> Iterator[Json]:
    for group, ratings in [("", board["ratings"]), *board["groups"].items()]:
        for editor, rating in ratings.items():
            figure = {
                "mean": rating["elo"],
                "low": rating["low"],
                "high": rating["high"],
                "n": rating["matches"],
            }
            yield {"editor": editor, "group": group, "metric": "elo", **figure}


def _plain(figure: Json) -> Json:
    return {name: figure[name] for name in ("mean", "low", "high", "n")}


# LaTeX


def latex(boards: Boards, level: float) -> str:
    """A booktabs table for each protocol; figures from papers below a rule, with their protocol and source."""
    tables = [
        _latex_table(benchmark, protocol, board, level)
        for benchmark, protocols in boards.items()
        for protocol, board in protocols.items()
    ]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def _latex_table(benchmark: str, protocol: str, board: Json, level: float) -> str:
    caption = f"{benchmark}, {protocol}: {board['about']}. Means with {level:.0%} intervals."
    if board.get("pairwise"):
        head, body = (
            ["Editor", "Rating"],
            [
                [_tex(name), _tex_estimate({"mean": r["elo"], "low": r["low"], "high": r["high"]}, False)]
                for name, r in sorted(board["ratings"].items(), key=lambda item: -item[1]["elo"])
            ],
        )
        papers: list[list[str]] = []
    else:
        shown = _shown(board)
        arrows = {"lower": "$\\downarrow$", "higher": "$\\uparrow$"}
        head = ["Editor", *(f"{_tex(m)} {arrows[board['metrics'][m]]}" for m in shown)]
        body = [
            [_tex(editor), *(_tex_estimate(row["metrics"][m], _best(board, m, editor)) for m in shown)]
            for editor, row in board["rows"].items()
        ]
        papers = [
            [
                _tex(f"{row['model']} ({row['protocol']}; {row['source']})"),
                *(_tex_number(row["values"].get(m)) for m in shown),
            ]
            for row in board["published"]
        ]
    rows = [" & ".join(row) + " \\\\" for row in body]
    below = ["\\midrule", *(" & ".join(row) + " \\\\" for row in papers)] if papers else []
    lines = [
        "\\begin{table}",
        f"\\caption{{{_tex(caption)}}}",
        "\\begin{tabular}{l" + "c" * (len(head) - 1) + "}",
        "\\toprule",
        " & ".join(head) + " \\\\",
        "\\midrule",
        *rows,
        *below,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _tex(text: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "−": "--",
    }
    return "".join(special.get(letter, letter) for letter in text)


def _tex_estimate(figure: Json, best: bool) -> str:
    if figure["mean"] is None:
        return "--"
    number = _tex_number(figure["mean"])
    number = f"\\textbf{{{number}}}" if best else number
    if figure["low"] is None:
        return number
    return f"{number} {{\\scriptsize [{_tex_number(figure['low'])}, {_tex_number(figure['high'])}]}}"


def _tex_number(value: float | None) -> str:
    return "--" if value is None else number(value).replace("-", "$-$")


# Cells


def _arrow(board: Json, metric: str) -> str:
    return f"{metric} {'↓' if board['metrics'][metric] == 'lower' else '↑'}"


def estimate(figure: Json, whole: int | None = None) -> str:
    """The mean and its interval, and the number of cases if some are unknown."""
    if figure["mean"] is None:
        return "–"
    text = number(figure["mean"])
    if figure["low"] is not None:
        text += f" [{number(figure['low'])}, {number(figure['high'])}]"
    return text if whole is None or figure["n"] == whole else f"{text} of {figure['n']}"


def _rating(rating: Json | None) -> str:
    if rating is None:
        return "–"
    text = f"{rating['elo']:.0f}"
    return text if rating["low"] is None else f"{text} [{rating['low']:.0f}, {rating['high']:.0f}]"


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _bold(text: str, best: bool) -> str:
    return f"**{text}**" if best else text


def _italic(text: str) -> str:
    return text if text == "–" else f"*{text}*"


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(map(_cell, head)) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in body),
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
