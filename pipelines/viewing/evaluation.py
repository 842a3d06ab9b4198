"""The browser's pages of an evaluation: the tables, the cases with every editor's answer side by side, and one case.

Everything is read from `cases.parquet` and `results.json`. Only pictures at the locations named there are served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crispedit.benchmark import Picture
from crispedit.pipelines import tables
from crispedit.pipelines.evaluation import report
from crispedit.pipelines.evaluation.runner import COPY, TRUTH
from crispedit.pipelines.viewing import serving
from crispedit.pipelines.viewing.queries import Address, Page, Row, neighbours
from crispedit.shards import sheet
from crispedit.shards.journal import quoted

SIDES = ("source", "answer", "target")
PAGE = 24
ORDERS = {"": "as listed", "worst": "worst first", "best": "best first", "apart": "most different first"}


@dataclass(frozen=True)
class EvaluationAddress(Address):
    """The content of a page of cases."""

    benchmark: str = ""
    protocol: str = ""
    group: str = ""
    metric: str = ""
    order: str = ""
    editor: str = ""
    """The editor whose worst or best cases are shown; with `against`, one of the two compared."""
    against: str = ""


class EvaluationResults:
    """An evaluation's results, read again when they have changed."""

    def __init__(self, root: Path) -> None:
        """ValueError if there are no results."""
        self.root, self.name, self.run = root, root.absolute().name, None
        self._lock = Lock()
        self.taken = 0.0
        self.current()

    def current(self) -> EvaluationResults:
        """Itself, after reading changed files."""
        written = (self.root / "results.json").stat().st_mtime
        with self._lock:
            if written != self.taken:
                self.boards: Mapping[str, Mapping[str, Any]] = json.loads((self.root / "results.json").read_text())
                self.db = duckdb.connect()
                self.db.execute(
                    "CREATE TABLE value AS SELECT * FROM read_parquet(?)", [str(self.root / "cases.parquet")]
                )
                self.taken = written
        return self

    def sql(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        return tables.rows(self.db, query, values)

    def count(self) -> int:
        """Cases of all benchmarks."""
        return int(self.sql('SELECT count(*) AS n FROM (SELECT DISTINCT benchmark, "case" FROM value)')[0]["n"])

    def wanted(self, parameters: Mapping[str, str]) -> EvaluationAddress:
        """The address's parameters, completed by defaults. ValueError for values that this evaluation does not have."""
        address = EvaluationAddress.of(parameters)
        benchmark = _one_of("benchmark", address.benchmark, list(self.boards))
        boards = self.boards[benchmark]
        protocol = _one_of("protocol", address.protocol, list(boards))
        metrics = self.metrics(benchmark, protocol)
        headline = boards[protocol].get("headline")
        metric = _one_of("metric", address.metric or (headline if headline in metrics else ""), list(metrics))
        editors = self.editors(benchmark, protocol)
        # Defaults are editors, not controls.
        players = [name for name in editors if name not in (COPY, TRUTH)] or editors
        editor = _one_of("editor", address.editor, editors, players)
        rivals = [name for name in editors if name != editor] or [editor]
        others = [name for name in players if name != editor] or rivals
        against = _one_of("editor", address.against if address.against != editor else "", rivals, others)
        if address.order not in ORDERS:
            raise ValueError(f"there is no order {address.order!r}; choose from {', '.join(filter(None, ORDERS))}")
        return replace(address, benchmark=benchmark, protocol=protocol, metric=metric, editor=editor, against=against)

    def metrics(self, benchmark: str, protocol: str) -> Mapping[str, str]:
        """The metrics of the cases, and whether lower or higher is better."""
        board = self.boards[benchmark][protocol]
        query = "SELECT DISTINCT metric FROM value WHERE benchmark = ? AND protocol = ? ORDER BY 1"
        rows = self.sql(query, [benchmark, protocol])
        return {row["metric"]: board.get("metrics", {}).get(row["metric"], "higher") for row in rows}

    def editors(self, benchmark: str, protocol: str) -> list[str]:
        """Controls first, then the others by name."""
        rows = self.sql(
            "SELECT editor FROM value WHERE benchmark = ? AND protocol = ? GROUP BY 1 ORDER BY editor NOT IN (?, ?), 1",
            [benchmark, protocol, COPY, TRUTH],
        )
        return [row["editor"] for row in rows]

    def groups(self, wanted: EvaluationAddress) -> list[tuple[str, int]]:
        """The kinds of edit, with their numbers of cases."""
        rows = self.sql(
            'SELECT "group", count(DISTINCT "case") AS n FROM value WHERE benchmark = ? AND protocol = ? GROUP BY 1 '
            "ORDER BY 1",
            [wanted.benchmark, wanted.protocol],
        )
        return [(row["group"], row["n"]) for row in rows]

    def cases(self, wanted: EvaluationAddress) -> tuple[list[str], int]:
        """The cases of a page in the requested order, and their total. Cases without a value come last."""
        where, values = "benchmark = ? AND protocol = ?", [wanted.benchmark, wanted.protocol]
        if wanted.group:
            where, values = f'{where} AND "group" = ?', [*values, wanted.group]
        if wanted.q:
            where += ' AND (contains(lower(instruction), lower(?)) OR contains("case", ?))'
            values += [wanted.q, wanted.q]

        def mean(editor: str) -> str:
            return f"avg(value) FILTER (metric = {quoted(wanted.metric)} AND editor = {quoted(editor)})"

        order = '"case"'
        if wanted.order == "apart":
            order = f'abs({mean(wanted.editor)} - {mean(wanted.against)}) DESC NULLS LAST, "case"'
        elif wanted.order:
            higher = self.metrics(wanted.benchmark, wanted.protocol)[wanted.metric] == "higher"
            down = (wanted.order == "best") == higher
            order = f'{mean(wanted.editor)} {"DESC" if down else "ASC"} NULLS LAST, "case"'
        total = self.sql(f'SELECT count(DISTINCT "case") AS n FROM value WHERE {where}', values)[0]["n"]
        page = f"LIMIT {PAGE} OFFSET {PAGE * (wanted.page - 1)}"
        rows = self.sql(f'SELECT "case" FROM value WHERE {where} GROUP BY "case" ORDER BY {order} {page}', values)
        return [row["case"] for row in rows], total

    def answers(self, wanted: EvaluationAddress, cases: Sequence[str]) -> list[Row]:
        """These cases in this order, each with its `answers`: one per editor and seed, with its values (means over
        judgements), the reason if there are none, and the judge's words."""
        rows = self.sql(
            """
            WITH judged AS (
                SELECT "case", "group", instruction, editor, seed, metric, min(rowid) AS row, min(kind) AS kind,
                    min(reason) AS reason, flatten(list(words ORDER BY judgement)) AS words, avg(value) AS value,
                    any_value(source) AS source, any_value(answer) AS answer, any_value(target) AS target
                FROM value WHERE benchmark = ? AND protocol = ? AND list_contains(?, "case")
                GROUP BY "case", "group", instruction, editor, seed, metric
            )
            SELECT "case", "group", instruction, editor, seed, min(row) AS row, min(kind) AS kind,
                min(nullif(reason, '')) AS reason, any_value(words) AS words, bool_or(source IS NOT NULL) AS source,
                bool_or(answer IS NOT NULL) AS answer, bool_or(target IS NOT NULL) AS target,
                map_from_entries(list((metric, value))) AS marks
            FROM judged GROUP BY "case", "group", instruction, editor, seed
            ORDER BY editor NOT IN (?, ?), editor, seed
            """,
            [wanted.benchmark, wanted.protocol, list(cases), COPY, TRUTH],
        )
        by_case: dict[str, Row] = {}
        for row in rows:
            by_case.setdefault(row["case"], {**row, "answers": []})["answers"].append(row)
        return [by_case[case] for case in cases if case in by_case]

    def picture(self, row: int, side: str) -> Picture | None:
        """The location of a row's picture. KeyError if there is no such row or side."""
        if side not in SIDES:
            raise KeyError(side)
        rows = self.sql(f"SELECT {side} AS place FROM value WHERE rowid = ?", [row])
        if not rows:
            raise KeyError(row)
        return None if rows[0]["place"] is None else Picture(**rows[0]["place"])


def _one_of(what: str, given: str, known: Sequence[str], preferred: Sequence[str] = ()) -> str:
    """The given value, or the first; ValueError if it is unknown."""
    if given and given not in known:
        raise ValueError(f"there is no {what} {given!r}; choose from {', '.join(known)}")
    return given or next(iter([*preferred, *known]), "")


def drawn(picture: Picture, width: int) -> bytes:
    """A picture as JPEG, at most `width` pixels wide (0: its own size). ValueError if it is not an image."""
    image = Image.fromarray(picture.image())
    if width:
        image.thumbnail((width, 4 * width), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return sheet.encoded(np.asarray(image), sheet.QUALITY if width else 95)


class EvaluationSite(serving.Pages):
    """The pages of an evaluation."""

    sections = (("/", "Tables"), ("/cases", "Cases"))

    def __init__(self, shown: EvaluationResults) -> None:
        super().__init__()
        self.shown = shown
        self.templates.filters["estimate"] = report.estimate
        self.templates.globals |= {"controls": (COPY, TRUTH), "orders": ORDERS}

    def current(self) -> EvaluationResults:
        return self.shown.current()

    def routes(self) -> list[Route]:
        return [
            Route("/", self.tables),
            Route("/cases", self.cases),
            Route("/cases/one", self.case),
            Route("/picture/{row:int}/{side}", self.image),
        ]

    def tables(self, request: Request) -> Response:
        return self.page(request, "tables", self.current())

    def cases(self, request: Request) -> Response:
        s = self.current()
        wanted = s.wanted(request.query_params)
        names, total = s.cases(wanted)
        page = Page(total, wanted.page, PAGE, s.answers(wanted, names))
        return self.page(request, "cases", s, wanted=wanted, page=page)

    def case(self, request: Request) -> Response:
        s = self.current()
        wanted, name = s.wanted(request.query_params), request.query_params.get("case", "")
        answers = s.answers(wanted, [name])
        if not answers:
            raise KeyError(name)
        beside = neighbours(s.cases(wanted)[0], name)
        return self.page(request, "case", s, wanted=wanted, case=answers[0], beside=beside)

    def image(self, request: Request) -> Response:
        place = self.shown.picture(request.path_params["row"], request.path_params["side"])
        return self.picture(request, place, (lambda width: None) if place is None else partial(drawn, place))
