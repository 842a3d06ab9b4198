"""The browser's pages of an evaluation: the tables, the cases with every editor's answer side by side, and one case.

Everything is read from `cases.parquet` and `results.json`. Only pictures at the locations named there are served.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import duckdb
import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from crispedit.benchmark import Picture
from crispedit.pipelines import tables
from crispedit.pipelines.evaluation import report
from crispedit.pipelines.evaluation.runner import COPY, TRUTH
from crispedit.pipelines.viewing import pictures, serving, templates
from crispedit.pipelines.viewing.queries import Address
from crispedit.shards import sheet

SECTIONS = [("/", "Tables"), ("/cases", "Cases")]
SIDES = ("source", "answer", "target")
PAGE = 24
ORDERS = {"": "as listed", "worst": "worst first", "best": "best first", "apart": "most different first"}

Row = dict[str, Any]


@dataclass(frozen=True)
class EvaluationAddress(Address):
    """The content of a page; its fields are the parameters of the page's address."""

    benchmark: str = ""
    protocol: str = ""
    group: str = ""
    metric: str = ""
    order: str = ""
    editor: str = ""
    """The editor whose worst or best cases are shown; with `against`, one of the two compared."""
    against: str = ""
    q: str = ""
    page: int = 1


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
        given = {name: parameters.get(name, "")[:500] for name in EvaluationAddress.__dataclass_fields__}
        number = given.pop("page")
        address = EvaluationAddress(**given, page=max(1, int(number)) if number.isdecimal() else 1)
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
        open_ = {"benchmark": benchmark, "protocol": protocol, "metric": metric, "editor": editor, "against": against}
        return EvaluationAddress(**{**vars(address), **open_})

    def metrics(self, benchmark: str, protocol: str) -> Mapping[str, str]:
        """The metrics of the cases, and whether lower or higher is better."""
        board = self.boards[benchmark][protocol]
        rows = self.sql(
            "SELECT DISTINCT metric FROM value WHERE benchmark = ? AND protocol = ? ORDER BY 1", [benchmark, protocol]
        )
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
        tests, values = ["benchmark = ?", "protocol = ?"], [wanted.benchmark, wanted.protocol]
        if wanted.group:
            tests.append('"group" = ?')
            values.append(wanted.group)
        if wanted.q:
            tests.append('(contains(lower(instruction), lower(?)) OR contains("case", ?))')
            values += [wanted.q, wanted.q]
        mean = "avg(value) FILTER (metric = ? AND editor = ?)"
        asked = [wanted.metric, wanted.editor]
        higher = self.metrics(wanted.benchmark, wanted.protocol)[wanted.metric] == "higher"
        if wanted.order == "apart":
            by, down = f"abs({mean} - {mean})", True
            asked += [wanted.metric, wanted.against]
        else:
            by, down = mean, (wanted.order == "best") == higher
        order = f'{by} {"DESC" if down else "ASC"} NULLS LAST, "case"' if wanted.order else '"case"'
        where = " AND ".join(tests)
        total = self.sql(f'SELECT count(DISTINCT "case") AS n FROM value WHERE {where}', values)[0]["n"]
        rows = self.sql(
            f'SELECT "case" FROM value WHERE {where} GROUP BY "case" ORDER BY {order} LIMIT {PAGE} OFFSET ?',
            [*values, *(asked if wanted.order else []), PAGE * (wanted.page - 1)],
        )
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
                list(metric) AS metrics, list(value) AS marks
            FROM judged GROUP BY "case", "group", instruction, editor, seed
            ORDER BY editor NOT IN (?, ?), editor, seed
            """,
            [wanted.benchmark, wanted.protocol, list(cases), COPY, TRUTH],
        )
        by_case: dict[str, Row] = {}
        for row in rows:
            row["marks"] = dict(zip(row.pop("metrics"), row["marks"], strict=True))
            of = by_case.setdefault(row["case"], {**row, "answers": []})
            of["answers"].append(row)
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


class EvaluationSite:
    """The pages of an evaluation."""

    def __init__(self, shown: EvaluationResults) -> None:
        self.shown = shown
        self.recent = pictures.Recent()
        self.templates = templates.environment()
        self.templates.filters["estimate"] = report.estimate

    def app(self) -> Starlette:
        """The routes; nothing else is served."""
        routes = [
            Route("/", self.tables),
            Route("/cases", self.cases),
            Route("/cases/one", self.case),
            Route("/picture/{row:int}/{side}", self.picture),
            Route("/static/{name}", serving.static),
            Route("/fresh", self.fresh),
        ]
        return Starlette(routes=routes, exception_handlers=serving.MISTAKES)

    def page(self, request: Request, name: str, **values: Any) -> HTMLResponse:
        common = {"s": self.shown, "path": request.url.path, "sections": SECTIONS, "controls": (COPY, TRUTH)}
        return HTMLResponse(self.templates.get_template(f"{name}.html.jinja").render(**common, **values))

    def tables(self, request: Request) -> Response:
        return self.page(request, "tables", boards=self.shown.current().boards)

    def cases(self, request: Request) -> Response:
        s = self.shown.current()
        wanted = s.wanted(request.query_params)
        names, total = s.cases(wanted)
        return self.page(
            request,
            "cases",
            wanted=wanted,
            cases=s.answers(wanted, names),
            total=total,
            pages=max(1, math.ceil(total / PAGE)),
            groups=s.groups(wanted),
            metrics=s.metrics(wanted.benchmark, wanted.protocol),
            editors=s.editors(wanted.benchmark, wanted.protocol),
            orders=ORDERS,
        )

    def case(self, request: Request) -> Response:
        s = self.shown.current()
        wanted, name = s.wanted(request.query_params), request.query_params.get("case", "")
        listed, _ = s.cases(wanted)
        answers = s.answers(wanted, [name])
        if not answers:
            raise KeyError(name)
        at = listed.index(name) if name in listed else None
        return self.page(
            request,
            "case",
            wanted=wanted,
            case=answers[0],
            before=listed[at - 1] if at else None,
            after=listed[at + 1] if at is not None and at + 1 < len(listed) else None,
            metrics=s.metrics(wanted.benchmark, wanted.protocol),
        )

    def picture(self, request: Request) -> Response:
        row, side = request.path_params["row"], request.path_params["side"]
        width, place = serving.width(request), self.shown.picture(row, side)
        draw = (lambda: None) if place is None else (lambda: drawn(place, width))
        return serving.picture(self.recent, (place, width), draw)

    def fresh(self, request: Request) -> Response:
        return JSONResponse({"taken": self.shown.current().taken})
