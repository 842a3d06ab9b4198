"""The server of `crispedit view`. Each page is a few queries and a template."""

import logging
import time
from collections.abc import Callable
from functools import partial
from threading import Lock, Thread
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from crispedit.bounds import Bound
from crispedit.outcome import KEPT, NOT_REACHED
from crispedit.pipelines import build, recipe
from crispedit.pipelines.run import Run
from crispedit.pipelines.viewing import charts, comparison, labels, overview, pictures, queries, serving, snapshot
from crispedit.pipelines.viewing import moved as moved_bounds
from crispedit.pipelines.viewing.comparison import OtherVerdicts
from crispedit.pipelines.viewing.labels import Labels
from crispedit.pipelines.viewing.moved import MovedBound
from crispedit.pipelines.viewing.queries import PairsAddress
from crispedit.pipelines.viewing.snapshot import Snapshot

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


class Site(serving.Pages):
    """The pages of one `ViewedRun`."""

    sections = (
        ("/", "Overview"),
        ("/pairs", "Pairs"),
        ("/bounds", "Bounds"),
        ("/label", "Label"),
        ("/compare", "Compare"),
        ("/photographs", "Photographs"),
        ("/jobs", "Jobs"),
    )

    def __init__(self, shown: ViewedRun) -> None:
        super().__init__()
        self.shown = shown
        self.templates.globals |= {"comparison": comparison, "labelling": labels, "snapshot": snapshot}

    def routes(self) -> list[Route]:
        return [
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
        ]

    def current(self) -> Snapshot:
        return self.shown.current()

    def page(self, request: Request, name: str, s: Snapshot, /, **values: Any) -> HTMLResponse:
        return super().page(request, name, s, labels=self.shown.labels, versus=self.shown.comparison, **values)

    def overview(self, request: Request) -> Response:
        s = self.current()
        return self.page(request, "overview", s, **s.summary, progress=overview.progress(s))

    def pairs(self, request: Request) -> Response:
        s, wanted = self.current(), PairsAddress.of(request.query_params)
        facets = queries.facets(s, wanted)
        page = queries.pairs(s, wanted, total=facets.total)
        return self.page(request, "pairs", s, wanted=wanted, page=page, facets=facets)

    def pair(self, request: Request) -> Response:
        s, wanted = self.current(), PairsAddress.of(request.query_params)
        row = queries.pair(s, request.path_params["key"])
        keys = [listed["key"] for listed in queries.pairs(s, wanted).rows]
        beside = queries.neighbours(keys, row["key"])
        then = self.shown.comparison and comparison.verdict(s, self.shown.comparison, row["key"])
        return self.page(request, "pair", s, row=row, wanted=wanted, beside=beside, then=then)

    def job(self, request: Request) -> Response:
        s, key = self.current(), request.path_params["key"]
        job = s.of_key("SELECT * FROM job WHERE job_key = ? LIMIT 1", key)
        return self.page(request, "job", s, job=job, siblings=queries.siblings(s, key))

    def jobs(self, request: Request) -> Response:
        return self._listing(request, "jobs", "job", "instruction")

    def photographs(self, request: Request) -> Response:
        return self._listing(request, "photographs", "photograph", "uri")

    def _listing(self, request: Request, name: str, table: str, text: str) -> Response:
        s, wanted = self.current(), PairsAddress.of(request.query_params)
        page, counts = queries.listing(s, wanted, table, text)
        return self.page(request, name, s, wanted=wanted, page=page, counts=counts)

    def bounds(self, request: Request) -> Response:
        s, parameters = self.current(), request.query_params
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
        chart = charts.histogram(s, score, category, regime, also=here.bound) if score else None
        beside = charts.histogram(s, other, category, regime) if other in s.scores and chart else None
        points = charts.sample(s, score, other, category, regime) if beside else []
        small = {name: charts.histogram(s, score, name, regime, bins=40) for name in s.categories if score}
        values = {"score": score, "category": category, "regime": regime, "moved": moved, "bound": here.bound}
        values |= {"other": other, "chart": chart, "beside": beside, "points": points, "small": small}
        return self.page(request, "bounds", s, **values, reasons=reasons)

    def what_if(self, request: Request) -> Response:
        """What moved bounds would keep, and the pairs on both sides of the last moved bound."""
        s = self.shown.snapshot
        moved = _moved(s, request)
        if moved:
            last = moved[-1]
        else:
            score, category, regime = (request.query_params.get(name, "") for name in ("score", "category", "regime"))
            if score not in s.scores:
                raise ValueError(f"there is no score {score!r}")
            last = MovedBound(score, category or None, regime or None, s.bound(score, category, regime))
        is_max = request.query_params.get("side") == "max" or last.bound.min is None
        at = last.bound.max if is_max else last.bound.min
        below, above = moved_bounds.sides(s, moved, last, at) if at is not None else ([], [])
        exact = None
        if request.query_params.get("exact") and moved and s.run is not None:
            against = self.shown.against(moved)
            assert against is not None
            exact = {row.category: row.both + row.gained for row in comparison.moves(s, against)}
        values = {"moved": moved, "last": last, "at": at, "below": below, "above": above, "exact": exact}
        overrides = moved_bounds.overrides(s, moved) if s.run is not None else []
        rows = moved_bounds.what_if(s, moved)
        return self.page(request, "what_if", s, **values, rows=rows, overrides=overrides)

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
        s, wanted = self.current(), PairsAddress.of(request.query_params)
        moved = _moved(s, request)
        return self.page(request, "compare", s, wanted=wanted, moved=moved, against=self.shown.against(moved))

    def label(self, request: Request) -> Response:
        s, wanted = self.current(), PairsAddress.of(request.query_params)
        order = request.query_params.get("order", "informative")
        if order not in labels.ORDERS:
            raise ValueError(f"there is no order {order!r}; choose from {', '.join(labels.ORDERS)}")
        rows = labels.queue(s, order, wanted)
        if key := request.query_params.get("key"):
            rows = [queries.pair(s, key), *(row for row in rows if row["key"] != key)]
        blind = request.query_params.get("blind", "1") == "1"
        reasons = [reason for reason, _, _ in overview.matrix(s).rows]
        return self.page(request, "label", s, wanted=wanted, order=order, blind=blind, rows=rows, reasons=reasons)

    def learned(self, request: Request) -> Response:
        """Redirect to the page of bounds, with the learned bounds moved."""
        s = self.shown.snapshot
        bounds = labels.learned_bounds(s) if s.run is not None else []
        if not bounds:
            return self.page(request, "no_learned_bounds", s)
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
        return self.picture(request, (which, key, side), partial(pictures.of_pair, s, key, side))

    def photograph(self, request: Request) -> Response:
        key, s = request.path_params["key"], self.shown.snapshot
        return self.picture(request, ("photo", key), partial(pictures.photograph, s, key))


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
