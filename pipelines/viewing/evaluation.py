"""The browser's pages of an evaluation: the tables, the cases with every editor's answer side by side, and one case.

All of it is read from `cases.parquet` and `results.json`; pictures are read where these say that they lie, and nothing
else is served.
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
    """What a page is asked to show; its fields are the parameters of the page's address."""

    benchmark: str = ""
    protocol: str = ""
    group: str = ""
    metric: str = ""
    order: str = ""
    editor: str = ""
    """Whose worst or best cases; with `against`, one of two that differ."""
    against: str = ""
    q: str = ""
    page: int = 1


class EvaluationResults:
    """An evaluation's results, read again when another run of it has written them anew."""

    def __init__(self, root: Path) -> None:
        """ValueError if there are no results."""
        self.root, self.name, self.run = root, root.absolute().name, None
        self._lock = Lock()
        self.taken = 0.0
        self.current()

    def current(self) -> EvaluationResults:
        """Itself, as up to date as its files."""
        written = (self.root / "results.json").stat().st_mtime
        with self._lock:
            if written != self.taken:
                self.boards: Mapping[str, Mapping[str, Any]] = json.loads(
                    (self.root / "results.json").read_text()
                )
                self.db = duckdb.connect()
                self.db.execute(
                    "CREATE TABLE value AS SELECT * FROM read_parquet(?)", [str(self.root / "cases.parquet")]
                )
                self.taken = written
        return self

    def sql(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        with self.db.cursor() as cursor:
            done = cursor.execute(query, values)
            names = [column[0] for column in done.description or ()]
            return [dict(zip(names, row, strict=True)) for row in done.fetchall()]

    def count(self) -> int:
        """Cases of all benchmarks."""
        return int(
            self.sql('SELECT count(*) AS n FROM (SELECT DISTINCT benchmark, "case" FROM value)')[0]["n"]
        )

    def wanted(self, parameters: Mapping[str, str]) -> EvaluationAddress:
        """What an address asks for, with what it leaves open. ValueError for what this evaluation does not have."""
        given = {name: parameters.get(name, "")[:500] for name in EvaluationAddress.__dataclass_fields__}
        number = given.pop("page")
        made = EvaluationAddress(**given, page=max(1, int(number)) if number.isdecimal() else 1)
        benchmark = _one_of("benchmark", made.benchmark, list(self.boards))
        boards = self.boards[benchmark]
        protocol = _one_of("protocol", made.protocol, list(boards))
        metrics = self.metrics(benchmark, protocol)
        headline = boards[protocol].get("headline")
        metric = _one_of("metric", made.metric or (headline if headline in metrics else ""), list(metrics))
        editors = self.editors(benchmark, protocol)
        # Controls are no competitors: nobody looks for their worst cases first.
        players = [name for name in editors if name not in (COPY, TRUTH)] or editors
        editor = _one_of("editor", made.editor, editors, players)
        rivals = [name for name in editors if name != editor] or [editor]
        others = [name for name in players if name != editor] or rivals
        against = _one_of("editor", made.against if made.against != editor else "", rivals, others)
        if made.order not in ORDERS:
            raise ValueError(
                f"there is no order {made.order!r}; choose from {', '.join(filter(None, ORDERS))}"
            )
        open_ = {
            "benchmark": benchmark,
            "protocol": protocol,
            "metric": metric,
            "editor": editor,
            "against": against,
        }
        return EvaluationAddress(**{**vars(made), **open_})

    def metrics(self, benchmark: str, protocol: str) -> Mapping[str, str]:
        """Those of the cases, and whether lower or higher is better."""
        board = self.boards[benchmark][protocol]
        rows = self.sql(
            "SELECT DISTINCT metric FROM value WHERE benchmark = ? AND protocol = ? ORDER BY 1",
            [benchmark, protocol],
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
        """The kinds of edit, with their cases."""
        rows = self.sql(
            'SELECT "group", count(DISTINCT "case") AS n FROM value WHERE benchmark = ? AND protocol = ? GROUP BY 1 '
            "ORDER BY 1",
            [wanted.benchmark, wanted.protocol],
        )
        return [(row["group"], row["n"]) for row in rows]

    def cases(self, wanted: EvaluationAddress) -> tuple[list[str], int]:
        """The cases of a page, in the wanted order, and how many there are. A case without a value comes last."""
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
        """These cases, in this order, each with its `answers`: one for each editor and seed, with its values (of
        several judgements the mean), why it has none, and what the judge said."""
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
        found: dict[str, Row] = {}
        for row in rows:
            row["marks"] = dict(zip(row.pop("metrics"), row["marks"], strict=True))
            of = found.setdefault(row["case"], {**row, "answers": []})
            of["answers"].append(row)
        return [found[case] for case in cases if case in found]

    def picture(self, row: int, side: str) -> Picture | None:
        """Where a picture of a row lies. KeyError if there is no such row or side."""
        if side not in SIDES:
            raise KeyError(side)
        rows = self.sql(f"SELECT {side} AS place FROM value WHERE rowid = ?", [row])
        if not rows:
            raise KeyError(row)
        return None if rows[0]["place"] is None else Picture(**rows[0]["place"])


def _one_of(what: str, given: str, known: Sequence[str], preferred: Sequence[str] = ()) -> str:
    """What was asked for, or the first; ValueError if it is unknown."""
    if given and given not in known:
        raise ValueError(f"there is no {what} {given!r}; choose from {', '.join(known)}")
    return given or next(iter([*preferred, *known]), "")


def drawn(picture: Picture, width: int) -> bytes:
    """A picture at most `width` pixels wide (0: as it is) as JPEG. ValueError if it is none."""
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
        """The routes. Nothing but what they name is served."""
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
        found = s.answers(wanted, [name])
        if not found:
            raise KeyError(name)
        at = listed.index(name) if name in listed else None
        return self.page(
            request,
            "case",
            wanted=wanted,
            case=found[0],
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
