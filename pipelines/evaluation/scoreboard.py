"""Scoreboard: means with bootstrap intervals, counts, and differences between editors, as JSON and as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from crispedit.benchmark import Protocol
from crispedit.measures import Models
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, Outcome
from crispedit.record import seed_of

DRAWS_AT_ONCE = 200
"""Bootstrap draws held in memory together."""
NEEDS = {"clip_i": "clip", "clip_t": "clip", "clip_dir": "clip_large", "dino": "dino"} | dict.fromkeys(
    ("SC", "PQ", "O", "balance", "compliance", "seamlessness", "fidelity", "mean"), "judge"
)
"""The model that a metric needs."""

Json = dict[str, Any]


def protocol_board(
    name: str,
    protocol: Protocol,
    outcomes: Mapping[str, Sequence[Outcome]],
    models: Models,
    draws: int,
    level: float,
) -> Json:
    """Everything about one protocol, JSON-ready: a row per editor, differences, published figures.

    draws: bootstrap samples of families. level: of the intervals, such as 0.95.
    """
    mine = {
        editor: [outcome for outcome in found if name in outcome.case.protocols]
        for editor, found in outcomes.items()
    }
    sampler = _Sampler(name, protocol, draws, level)
    rows = {editor: _row(name, protocol, found, sampler) for editor, found in mine.items() if found}
    null = {
        metric: f"the recipe names no models.{NEEDS[metric]}"
        for metric in protocol.metrics
        if metric in NEEDS and getattr(models, NEEDS[metric]) is None
    }
    return {
        "about": protocol.about,
        "metrics": dict(protocol.metrics),
        "headline": protocol.headline,
        "null": null,
        "models": {
            role: {"used": _used(models, role), "published": protocol.models.get(role)}
            for role in dict.fromkeys(NEEDS[metric] for metric in protocol.metrics if metric in NEEDS)
        },
        "rows": rows,
        "differences": _differences(name, protocol, mine, sampler),
        "published": published().get(name, []),
    }


def published() -> dict[str, list[Json]]:
    """Figures of papers by protocol, with their source (`configs/evaluate/published.yaml`)."""
    text = (resources.files("crispedit.configs") / "evaluate" / "published.yaml").read_text(encoding="utf-8")
    found: dict[str, list[Json]] = yaml.safe_load(text)
    return found


def _used(models: Models, role: str) -> str | None:
    spec = getattr(models, role)
    return None if spec is None else " ".join(filter(None, [spec.model, getattr(spec, "pretrained", "")]))


def _row(name: str, protocol: Protocol, outcomes: Sequence[Outcome], sampler: _Sampler) -> Json:
    counted = _counted(protocol, outcomes)
    groups = sorted({outcome.case.group for outcome in counted})
    return {
        "cases": len(outcomes),
        "scored": sum(not outcome.reason for outcome in outcomes),
        "missing": sum(bool(outcome.reason) for outcome in outcomes),
        "black": sum(outcome.black for outcome in outcomes),
        "unparsed": sum(outcome.unparsed for outcome in outcomes),
        "reasons": dict(sorted(Counter(outcome.reason for outcome in outcomes if outcome.reason).items())),
        "metrics": {
            metric: sampler.mean(metric, counted, _values(name, metric, counted))
            for metric in protocol.metrics
        },
        "groups": {
            group: {
                metric: _plain([o for o in counted if o.case.group == group], name, metric)
                for metric in protocol.metrics
            }
            for group in groups
        },
    }


def _counted(protocol: Protocol, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that enter the means."""
    return [o for o in outcomes if not o.reason and not (protocol.drops_black and o.black)]


def _values(name: str, metric: str, outcomes: Sequence[Outcome]) -> list[float | None]:
    return [outcome.values[name][metric] for outcome in outcomes]


def _plain(outcomes: Sequence[Outcome], name: str, metric: str) -> Json:
    values = [value for value in _values(name, metric, outcomes) if value is not None]
    return {"mean": float(np.mean(values)) if values else None, "n": len(values)}


def _differences(
    name: str, protocol: Protocol, outcomes: Mapping[str, Sequence[Outcome]], sampler: _Sampler
) -> list[Json]:
    """Every editor minus the control that copies, and minus the editors before it, on the cases that both answered."""
    editors = [editor for editor in outcomes if editor not in (COPY, TRUTH)]
    found = []
    for place, editor in enumerate(editors):
        for other in [COPY, *editors[:place]]:
            theirs = {o.case.id: o for o in _counted(protocol, outcomes.get(other, []))}
            both = [o for o in _counted(protocol, outcomes[editor]) if o.case.id in theirs]
            if not both:
                continue
            metrics = {
                metric: sampler.difference(
                    metric,
                    both,
                    _values(name, metric, both),
                    _values(name, metric, [theirs[o.case.id] for o in both]),
                )
                for metric in protocol.metrics
            }
            found.append({"editor": editor, "minus": other, "metrics": metrics})
    return found


class _Sampler:
    """Bootstrap over families: cases of one family are drawn together, and groups keep their weight."""

    def __init__(self, name: str, protocol: Protocol, draws: int, level: float) -> None:
        self.name, self.by_group, self.draws, self.level = name, protocol.by_group, draws, level

    def mean(self, metric: str, outcomes: Sequence[Outcome], values: Sequence[float | None]) -> Json:
        """{mean, low, high, n} over the cases where the value is known; nulls where none is."""
        known = [(o, [v]) for o, v in zip(outcomes, values, strict=True) if v is not None]
        if not known:
            return {"mean": None, "low": None, "high": None, "n": 0}
        centre, drawn = self._means(metric, known)
        return {"mean": float(centre[0]), **self._interval(drawn[:, 0]), "n": len(known)}

    def difference(
        self,
        metric: str,
        outcomes: Sequence[Outcome],
        ours: Sequence[float | None],
        theirs: Sequence[float | None],
    ) -> Json:
        """{mean, low, high, n} of the paired difference, and of the ratio of the means where it is defined."""
        known = [
            (o, [a, b])
            for o, a, b in zip(outcomes, ours, theirs, strict=True)
            if a is not None and b is not None
        ]
        if not known:
            return {"mean": None, "low": None, "high": None, "n": 0, "ratio": None}
        centre, drawn = self._means(metric, known)
        ratio = None
        if centre[1] > 0 and (drawn[:, 1] > 0).all():
            ratio = {
                "mean": float(centre[0] / centre[1]),
                **self._interval(drawn[:, 0] / drawn[:, 1]),
            }
        return {
            "mean": float(centre[0] - centre[1]),
            **self._interval(drawn[:, 0] - drawn[:, 1]),
            "n": len(known),
            "ratio": ratio,
        }

    def _interval(self, drawn: NDArray[np.float64]) -> Json:
        low, high = np.quantile(drawn, [(1 - self.level) / 2, (1 + self.level) / 2])
        return {"low": float(low), "high": float(high)}

    def _means(
        self, metric: str, known: Sequence[tuple[Outcome, Sequence[float]]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """([C] the means of C columns, [draws, C] of resampled families)."""
        rng = np.random.Generator(np.random.PCG64(seed_of(f"{self.name} {metric}", "bootstrap")))
        groups = sorted({o.case.group for o, _ in known}) if self.by_group else [None]
        centres, drawn = [], []
        for group in groups:
            rows = [(o, row) for o, row in known if group is None or o.case.group == group]
            sums, counts = _by_family(rows)
            centres.append(sums.sum(0) / counts.sum())
            drawn.append(_resampled(sums, counts, self.draws, rng))
        return np.mean(centres, axis=0), np.mean(drawn, axis=0)


def _by_family(
    rows: Sequence[tuple[Outcome, Sequence[float]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([F, C] sums, [F] counts) of the rows of each family."""
    places: dict[str, int] = {}
    family = [places.setdefault(o.case.family or o.case.id, len(places)) for o, _ in rows]
    sums = np.zeros((len(places), len(rows[0][1])))
    np.add.at(sums, family, np.array([row for _, row in rows], np.float64))
    return sums, np.bincount(family, minlength=len(places)).astype(np.float64)


def _resampled(
    sums: NDArray[np.float64], counts: NDArray[np.float64], draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """[draws, C] means of F families drawn with replacement."""
    families = len(counts)
    found = []
    for start in range(0, draws, DRAWS_AT_ONCE):
        size = min(DRAWS_AT_ONCE, draws - start)
        weights = rng.multinomial(families, np.full(families, 1 / families), size=size)
        found.append(weights @ sums / (weights @ counts)[:, None])
    return np.concatenate(found)


# Markdown


def markdown(boards: Mapping[str, Mapping[str, Json]], level: float) -> str:
    """The page of every benchmark's protocols."""
    lines = [
        "# Evaluation",
        "",
        f"Means with {level:.0%} bootstrap intervals. ↓: less is better, ↑: more; – is not known, never zero.",
    ]
    for benchmark, protocols in boards.items():
        for protocol, board in protocols.items():
            lines += ["", f"## {benchmark}: {protocol}", "", _sentence(board["about"]), "", *_main(board)]
            lines += _notes(board)
            if len(_groups(board)) > 1:
                lines += ["", f"By kind of edit, {_arrow(board, board['headline'])}:", "", *_grouped(board)]
            if board["differences"]:
                lines += ["", "Differences, on the cases that both answered:", "", *_differing(board)]
            if board["published"]:
                lines += ["", "Published figures, for comparison:", "", *_published_rows(board)]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _shown(board: Json) -> list[str]:
    """The metrics that are known for anybody."""
    return [m for m in board["metrics"] if any(r["metrics"][m]["n"] for r in board["rows"].values())]


def _main(board: Json) -> list[str]:
    shown = _shown(board)
    head = ["", "cases", "scored", "missing", "black", "unparsed", *(_arrow(board, m) for m in shown)]
    body = [
        [
            editor,
            *(str(row[count]) for count in ("cases", "scored", "missing", "black", "unparsed")),
            *(_estimate(row["metrics"][metric], row["scored"]) for metric in shown),
        ]
        for editor, row in board["rows"].items()
    ]
    return _table(head, body)


def _notes(board: Json) -> list[str]:
    notes = [f"{metric} is null: {reason}" for metric, reason in board["null"].items()]
    for role, models in board["models"].items():
        if models["used"] is not None:
            with_ = f"; published with {models['published']}" if models["published"] else ""
            notes.append(f"{role}: {models['used']}{with_}")
    for editor, row in board["rows"].items():
        notes += [f"{editor}, missing {count}: {reason}" for reason, count in row["reasons"].items()]
    return ["", *(f"- {_cell(note)}" for note in notes)] if notes else []


def _groups(board: Json) -> list[str]:
    return sorted({group for row in board["rows"].values() for group in row["groups"]})


def _grouped(board: Json) -> list[str]:
    metric, groups = board["headline"], _groups(board)
    body = []
    for editor, row in board["rows"].items():
        means = [row["groups"].get(group, {}).get(metric, {}).get("mean") for group in groups]
        body.append([editor, *(_number(mean) for mean in means)])
    return _table(["", *groups], body)


def _differing(board: Json) -> list[str]:
    shown = _shown(board)
    body = [
        [f"{row['editor']} − {row['minus']}", *(_estimate(row["metrics"][metric]) for metric in shown)]
        for row in board["differences"]
    ]
    return _table(["", *(_arrow(board, metric) for metric in shown)], body)


def _published_rows(board: Json) -> list[str]:
    names = list(dict.fromkeys(metric for row in board["published"] for metric in row["values"]))
    body = [
        [row["model"], *(_number(row["values"].get(name)) for name in names), row["source"]]
        for row in board["published"]
    ]
    return _table(["", *names, "source"], body)


def _arrow(board: Json, metric: str) -> str:
    return f"{metric} {'↓' if board['metrics'][metric] == 'lower' else '↑'}"


def _estimate(found: Json, whole: int | None = None) -> str:
    """The mean and its interval; of how many, where some are not known."""
    if found["mean"] is None:
        return "–"
    text = f"{_number(found['mean'])} [{_number(found['low'])}, {_number(found['high'])}]"
    return text if whole is None or found["n"] == whole else f"{text} of {found['n']}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(map(_cell, head)) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(_cell, row)) + " |" for row in body),
    ]


def _cell(text: str) -> str:
    """Text that stays within its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
