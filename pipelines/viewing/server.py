"""The server of `crispedit view`. Each page is a few queries and a template."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from crispedit.bounds import Bound
from crispedit.outcome import KEPT, NOT_REACHED
from crispedit.pipelines import build, recipe
from crispedit.pipelines.run import Run
from crispedit.pipelines.viewing import (
    charts,
    comparison,
    distribution,
    labels,
    overview,
    pictures,
    queries,
    serving,
    snapshot,
    templates,
)
from crispedit.pipelines.viewing import moved as moved_bounds
from crispedit.pipelines.viewing.comparison import OtherVerdicts
from crispedit.pipelines.viewing.labels import Labels
from crispedit.pipelines.viewing.moved import MovedBound
from crispedit.pipelines.viewing.queries import PairsAddress
from crispedit.pipelines.viewing.snapshot import Snapshot

SECTIONS = [
    ("/", "Overview"),
    ("/pairs", "Pairs"),
    ("/bounds", "Bounds"),
    ("/label", "Label"),
    ("/compare", "Compare"),
    ("/photographs", "Photographs"),
    ("/jobs", "Jobs"),
]
LISTED = 60
"""Photographs or jobs on one page."""
FRESH_S = 3.0
"""A new snapshot is taken when the old one is at least this old, and 20 times as old as the time that it took."""

log = logging.getLogger(__name__)


class ViewedRun:
    """What is shown: a snapshot that follows the run's commits, labels, and the comparison."""

    def __init__(
        self, take: Callable[[], Snapshot], labelled: Labels, other: Callable[[], Snapshot] | str | None = None
    ) -> None:
        """`other`: a function that takes a snapshot of another run, or an override of this run's recipe."""
        self._take, self._other = take, other
        self.labels = labelled
        self._lock = Lock()
        self._taking = False
        self._moved: dict[tuple[str, ...], OtherVerdicts] = {}
        self.snapshot = self._taken()

    def _taken(self) -> Snapshot:
        taken = self._take()
        self.labels.fill(taken)
        taken.summary = overview.summary(taken)
        self.comparison = self._compared(taken)
        return taken

    def _compared(self, taken: Snapshot) -> OtherVerdicts | None:
        if self._other is None:
            return None
        if isinstance(self._other, str):
            return comparison.against_bounds(taken, [self._other], self._other, "other")
        return comparison.against_run(taken, self._other())

    def current(self) -> Snapshot:
        """The current snapshot. If the run has committed more, a new one is taken in the background."""
        shown = self.snapshot
        if shown.run is not None and not self._taking and time.time() - shown.taken > max(FRESH_S, 20 * shown.seconds):
            if snapshot.committed(shown.run) != shown.stamp:
                self._taking = True
                Thread(target=self._refresh, daemon=True).start()
        return self.snapshot

    def _refresh(self) -> None:
        try:
            self.take()
        except Exception as error:  # a part may vanish while it is read; the next page tries again
            log.warning("the run could not be read again, so the page is not updated: %s", error)
            self.snapshot.taken = time.time()
        finally:
            self._taking = False

    def take(self) -> None:
        """Take a new snapshot now."""
        taken = self._taken()
        with self._lock:
            self._moved.clear()
            self.snapshot = taken

    def against(self, moved: list[MovedBound]) -> OtherVerdicts | None:
        """The comparison with moved bounds, or else the one of `--against`."""
        shown = self.snapshot
        if not moved or shown.run is None:
            return self.comparison
        key = tuple(map(str, moved))
        with self._lock:
            if key not in self._moved:
                if len(self._moved) >= 4:
                    self._moved.pop(next(iter(self._moved)))
                used = {verdicts.table for verdicts in self._moved.values()}
                table = next(name for name in (f"moved_{n}" for n in range(5)) if name not in used)
                overrides = moved_bounds.overrides(shown, moved)
                self._moved[key] = comparison.against_bounds(shown, overrides, "the moved bounds", table)
            return self._moved[key]


class Site:
    """The pages of one `ViewedRun`."""

    def __init__(self, shown: ViewedRun) -> None:
        self.shown = shown
        self.recent = pictures.Recent()
        self.templates = templates.environment()

    def app(self) -> Starlette:
        """The routes; nothing else is served."""
        routes = [
            Route("/", self.overview),
            Route("/pairs", self.pairs),
            Route("/pair/{key}", self.pair),
            Route("/job/{key}", self.job),
            Route("/jobs", self.jobs),
            Route("/photographs", self.photographs),
            Route("/bounds", self.bounds),
            Route("/bounds/what-if", self.what_if),
            Route("/bounds/apply", self.apply, methods=["POST"]),
            Route("/compare", self.compare),
            Route("/label", self.label),
            Route("/label", self.save_label, methods=["POST"]),
            Route("/label/learned", self.learned),
            Route("/image/{which}/{key}/{side}", self.image),
            Route("/photograph/{key}", self.photograph),
            Route("/static/{name}", serving.static),
            Route("/fresh", self.fresh),
        ]
        return Starlette(routes=routes, exception_handlers=serving.MISTAKES)

    def page(self, request: Request, name: str, /, **values: Any) -> HTMLResponse:
        """A rendered template, with the variables that all templates need."""
        shown = self.shown
        common = {
            "s": shown.snapshot,
            "path": request.url.path,
            "sections": SECTIONS,
            "labels": shown.labels,
            "comparison": shown.comparison,
        }
        return HTMLResponse(self.templates.get_template(f"{name}.html.jinja").render(**common, **values))

    def overview(self, request: Request) -> Response:
        s = self.shown.current()
        return self.page(request, "overview", **s.summary, progress=overview.progress(s))

    def pairs(self, request: Request) -> Response:
        s, wanted = self.shown.current(), PairsAddress.of(request.query_params)
        facets = queries.facets(s, wanted)
        page = queries.pairs(s, wanted, total=facets.total)
        return self.page(request, "pairs", wanted=wanted, page=page, facets=facets)

    def pair(self, request: Request) -> Response:
        s, wanted = self.shown.current(), PairsAddress.of(request.query_params)
        row = queries.pair(s, request.path_params["key"])
        before, after = queries.neighbours(queries.pairs(s, wanted).rows, row["key"])
        then = self._then(row["key"])
        return self.page(
            request,
            "pair",
            row=row,
            wanted=wanted,
            before=before,
            after=after,
            then=then,
            filters=queries.measured(s, row),
            siblings=queries.siblings(s, row["job_key"]),
            answers=snapshot.answers(s, row),
        )

    def _then(self, key: str) -> dict[str, Any] | None:
        """The pair's verdict in the comparison of `--against`."""
        if self.shown.comparison is None:
            return None
        verdicts = self.shown.snapshot.sql(f"SELECT * FROM {self.shown.comparison.table} WHERE key = ?", [key])
        return verdicts[0] if verdicts else None

    def job(self, request: Request) -> Response:
        s = self.shown.current()
        jobs = s.sql("SELECT * FROM job WHERE job_key = ? LIMIT 1", [request.path_params["key"]])
        if not jobs:
            raise KeyError(request.path_params["key"])
        siblings = queries.siblings(s, jobs[0]["job_key"])
        scores = {row["key"]: queries.measured(s, row) for row in siblings}
        return self.page(
            request, "job", job=jobs[0], siblings=siblings, scores=scores, choice=snapshot.choice(s, jobs[0]["job_key"])
        )

    def jobs(self, request: Request) -> Response:
        return self._listing(request, "jobs", "job", "instruction")

    def photographs(self, request: Request) -> Response:
        return self._listing(request, "photographs", "photograph", "uri")

    def _listing(self, request: Request, name: str, table: str, text: str) -> Response:
        s, wanted = self.shown.current(), PairsAddress.of(request.query_params)
        tests, values = ["true"], []
        for column in ("outcome", "reason", *(["category"] if table == "job" else [])):
            if getattr(wanted, column):
                tests.append(f"{column} = ?")
                values.append(getattr(wanted, column))
        if wanted.q:
            tests.append(f"contains(lower({text}), lower(?))")
            values.append(wanted.q)
        condition = " AND ".join(tests)
        total = s.one(f"SELECT count(*) FROM {table} WHERE {condition}", values)
        page = queries.Page([], total, min(wanted.page, max(1, -(-total // LISTED))), LISTED)
        rows = s.sql(
            f"SELECT * FROM {table} WHERE {condition} ORDER BY {text}, key LIMIT ? OFFSET ?",
            [*values, LISTED, (page.number - 1) * LISTED],
        )
        counts = s.sql(f"SELECT outcome, reason, count(*) AS n FROM {table} GROUP BY ALL ORDER BY n DESC LIMIT 30")
        return self.page(request, name, wanted=wanted, page=page, rows=rows, counts=counts)

    def bounds(self, request: Request) -> Response:
        s, parameters = self.shown.current(), request.query_params
        reasons = {reason: total for reason, _, total in overview.matrix(s).rows}
        rejecting = [score for score in (reason.rpartition(":")[0] for reason in reasons) if score in s.scores]
        score = parameters.get("score") or [*rejecting, *s.bounded, *s.scores, ""][0]
        if score and score not in s.scores:
            raise ValueError(f"there is no score {score!r}; choose from {', '.join(s.scores)}")
        category = parameters.get("category", _telling(s, score))
        regime = parameters.get("regime", "") if category else ""
        other = parameters.get("other", "")
        moved = _moved(s, request)
        here = MovedBound(score, category or None, regime or None, s.bound(score, category, regime))
        here = next((m for m in moved if m.place == here.place), here)
        chart = distribution.histogram(s, score, category, regime, also=here.bound) if score else None
        points = None
        if other in s.scores and chart is not None:
            beside = distribution.histogram(s, other, category, regime)
            if beside is not None:
                points = charts.scatter(
                    distribution.scatter(s, score, other, category, regime),
                    (chart.low, chart.high),
                    (beside.low, beside.high),
                    charts.bounds_of([("all", here.bound)]),
                    charts.bounds_of([(category or "all", s.bound(other, category, regime))]),
                    (score, other),
                )
        by_category = {name: distribution.histogram(s, score, name, regime, bins=40) for name in s.categories if score}
        return self.page(
            request,
            "bounds",
            score=score,
            category=category,
            regime=regime,
            other=other,
            moved=moved,
            bound=here.bound,
            chart=chart,
            ghosts=templates.bound_names(s, score, category, regime),
            points=points,
            small=[(name, chart) for name, chart in by_category.items() if chart is not None],
            reasons=reasons,
        )

    def what_if(self, request: Request) -> Response:
        """What moved bounds would keep, and the pairs on both sides of the last moved bound."""
        s = self.shown.snapshot
        moved = _moved(s, request)
        side = request.query_params.get("side", "min")
        last = moved[-1] if moved else None
        if last is None or last.score not in s.scores:
            score, category, regime = (request.query_params.get(name, "") for name in ("score", "category", "regime"))
            if score not in s.scores:
                raise ValueError(f"there is no score {score!r}")
            last = MovedBound(score, category or None, regime or None, s.bound(score, category, regime))
        at = last.bound.max if side == "max" or last.bound.min is None else last.bound.min
        below, above = moved_bounds.sides(s, moved, last, at) if at is not None else ([], [])
        exact = None
        if request.query_params.get("exact") and moved and s.run is not None:
            against = self.shown.against(moved)
            assert against is not None
            exact = {row.category: row.both + row.gained for row in comparison.moves(s, against)}
        return self.page(
            request,
            "what_if",
            rows=moved_bounds.what_if(s, moved),
            moved=moved,
            last=last,
            at=at,
            inside="above" if at == last.bound.min else "below",
            below=below,
            above=above,
            exact=exact,
            overrides=moved_bounds.overrides(s, moved) if s.run is not None else [],
        )

    def apply(self, request: Request) -> Response:
        """Select again under the moved bounds, as `crispedit select RUN OVERRIDES` does."""
        s = self.shown.snapshot
        moved = _moved(s, request)
        if s.run is None or not moved:
            raise ValueError("there is nothing to apply: no bound was moved" if s.run else "a shard set has no bounds")
        root = s.run.root
        build.step(Run(recipe.load(str(root), [*moved_bounds.overrides(s, moved), f"run={root}"])), "select")
        self.shown.take()
        now = self.shown.snapshot
        waiting = now.one(f"SELECT count(*) FROM pair WHERE outcome = '{NOT_REACHED}'")
        then = f"crispedit step score {root}, then crispedit select {root}" if waiting else f"crispedit pack {root}"
        kept = now.one(f"SELECT count(*) FROM pair WHERE outcome = '{KEPT}'")
        return JSONResponse({"kept": kept, "waiting": waiting, "next": then})

    def compare(self, request: Request) -> Response:
        s, wanted = self.shown.current(), PairsAddress.of(request.query_params)
        moved = _moved(s, request)
        against = self.shown.against(moved)
        values: dict[str, Any] = {"wanted": wanted, "moved": moved, "against": against}
        if against is not None:
            values |= {
                "moves": comparison.moves(s, against),
                "transitions": comparison.transitions(s, against),
                "page": comparison.flipped(s, against, wanted, queries.PAGE),
            }
        return self.page(request, "compare", **values)

    def label(self, request: Request) -> Response:
        s, wanted = self.shown.current(), PairsAddress.of(request.query_params)
        sort = request.query_params.get("order", "informative")
        if sort not in labels.ORDERS:
            raise ValueError(f"there is no order {sort!r}; choose from {', '.join(labels.ORDERS)}")
        condition, values = queries.where(s, wanted)
        rows = labels.queue(s, sort, condition, values)
        if key := request.query_params.get("key"):
            rows = [queries.pair(s, key), *(row for row in rows if row["key"] != key)]
        return self.page(
            request,
            "label",
            wanted=wanted,
            order=sort,
            orders=labels.ORDERS,
            blind=request.query_params.get("blind", "1") == "1",
            row=rows[0] if rows else None,
            ahead=rows[1:],
            filters=queries.measured(s, rows[0]) if rows else {},
            bad=labels.REASONS,
            against=labels.against(s),
            last=self.shown.labels.last(),
            reasons=[reason for reason, _, _ in overview.matrix(s).rows],
        )

    def learned(self, request: Request) -> Response:
        """Redirect to the page of bounds, with the learned bounds moved."""
        s = self.shown.snapshot
        bounds = labels.learned_bounds(s) if s.run is not None else []
        if not bounds:
            return self.page(request, "no_learned_bounds", against=labels.against(s))
        first = bounds[0]
        place = {"score": first.score, "category": first.category or "", "regime": first.regime or ""}
        return RedirectResponse("/bounds?" + urlencode([*place.items(), *(("m", str(m)) for m in bounds)]), 303)

    async def save_label(self, request: Request) -> Response:
        given = await request.json()
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise ValueError("a label is an object of texts: key, verdict, reason")
        s = self.shown.snapshot
        row = queries.pair(s, given.get("key", ""))
        self.shown.labels.add(row, given.get("verdict", ""), given.get("reason", ""))
        self.shown.labels.fill(s, row["key"])
        return JSONResponse({"labelled": len(self.shown.labels)})

    def image(self, request: Request) -> Response:
        which, key, side = (request.path_params[name] for name in ("which", "key", "side"))
        compared = self.shown.comparison
        s = self.shown.snapshot if which == "this" else compared.other if compared is not None else None
        if s is None or side not in pictures.SIDES:
            raise KeyError(side)
        width = serving.width(request)
        return serving.picture(
            self.recent, (which, key, side, width), lambda: pictures.drawn(s, s.pictured(key), side, width)
        )

    def photograph(self, request: Request) -> Response:
        key, width = request.path_params["key"], serving.width(request)
        return serving.picture(
            self.recent, ("photo", key, width), lambda: pictures.photograph(self.shown.snapshot, key, width)
        )

    def fresh(self, request: Request) -> Response:
        """The time of the shown snapshot; an open page polls it and says when there is more to see."""
        return JSONResponse({"taken": self.shown.current().taken})


def _telling(s: Snapshot, score: str) -> str:
    """The default category for a score: all, or, if only some have a bound, the one that loses most by it."""
    own = [name for name, regime in s.cells if s.bound(score, name, regime) != Bound()]
    if not own or s.bound(score, None) != Bound():
        return ""
    lost = {
        row["category"]: row["n"]
        for row in s.sql(
            "SELECT category, count(*) AS n FROM pair WHERE starts_with(reason, ?) GROUP BY ALL", [f"{score}:"]
        )
    }
    return max(own, key=lambda name: lost.get(name, 0))


def _moved(s: Snapshot, request: Request) -> list[MovedBound]:
    """The moved bounds of an address (`m`, several times); the last one of a score and category counts."""
    moved: dict[str, MovedBound] = {}
    for text in request.query_params.getlist("m")[:40]:
        move = MovedBound.parse(text)
        known = move.category is None or move.category in s.categories
        if move.score not in s.scores or not known or (move.regime or "") not in ("", *s.regimes):
            raise ValueError(f"{text!r}: there is no such score, category or regime here")
        moved.pop(move.place, None)
        if move.bound != s.bound(move.score, *move.cell):
            moved[move.place] = move
    return list(moved.values())
