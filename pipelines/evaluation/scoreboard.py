"""Scoreboard: means with intervals, counts, and paired tests between editors, as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import yaml

from crispedit.benchmark import REVERSED, Benchmark, Case, Protocol
from crispedit.benchmarks import edit_compass, gedit, gedit_v2, imgedit
from crispedit.measures import Models
from crispedit.pipelines.evaluation import statistics
from crispedit.pipelines.evaluation.runner import COPY, TRUTH, JudgedComparison, Outcome
from crispedit.record import seed_of

NEEDS = {"clip_i": "clip", "clip_t": "clip", "clip_dir": "clip_large", "dino": "dino"} | {
    metric: "judge" for judged in (gedit, imgedit, edit_compass, gedit_v2) for metric in judged.METRICS
}
"""The model that a metric needs."""

Json = dict[str, Any]


def protocol_board(
    name: str,
    protocol: Protocol,
    outcomes: Mapping[str, Sequence[Outcome]],
    models: Models,
    level: float,
    benchmark: Benchmark | None = None,
) -> Json:
    """Everything about one protocol, JSON-ready: a row per editor, differences, published figures.

    level: the intervals' confidence level, such as 0.95.
    """
    mine = {
        editor: [outcome for outcome in results if name in outcome.case.protocols]
        for editor, results in outcomes.items()
    }
    scorer = _Scorer(name, protocol, level, mine)
    rows = {editor: scorer.row(results) for editor, results in mine.items() if results}
    return _about(name, protocol, models, benchmark) | {
        "metrics": dict(protocol.metrics),
        "headline": protocol.headline,
        "labels": {group: dict(names) for group, names in protocol.labels.items()},
        "rows": rows,
        "ranks": _ranks(protocol, rows),
        "differences": scorer.differences(),
    }


def _about(name: str, protocol: Protocol, models: Models, benchmark: Benchmark | None) -> Json:
    """What the boards of all protocols say: the models, the judge's settings, and figures from papers."""
    needs = {metric: NEEDS[metric] for metric in protocol.metrics if metric in NEEDS}
    unnamed = {metric: role for metric, role in needs.items() if getattr(models, role) is None}
    judge = models.judge
    return {
        "about": protocol.about,
        "request": {} if judge is None or benchmark is None else dict(benchmark.request(judge)),
        "null": {metric: f"the recipe names no models.{role}" for metric, role in unnamed.items()},
        "models": {
            role: {"used": _used(models, role), "published": protocol.models.get(role)}
            for role in dict.fromkeys(needs.values())
        },
        "published": published(protocol.published_as or name),
    }


def published(protocol: str) -> list[Json]:
    """Figures from papers for a protocol, each with its protocol and source (`configs/evaluate/published.yaml`)."""
    text = (resources.files("crispedit.configs") / "evaluate" / "published.yaml").read_text(encoding="utf-8")
    figures: dict[str, list[Json]] = yaml.safe_load(text)
    return [{"protocol": protocol} | row for row in figures.get(protocol, [])]


def _used(models: Models, role: str) -> str | None:
    spec = getattr(models, role)
    return None if spec is None else " ".join(filter(None, [spec.model, getattr(spec, "pretrained", "")]))


def _ranks(protocol: Protocol, rows: Mapping[str, Json]) -> Json:
    """Ranks by each metric's mean, 1 the best; equal means share a rank, and controls have none."""
    ranks: Json = {}
    for metric, better in protocol.metrics.items():
        means = {e: row["metrics"][metric]["mean"] for e, row in rows.items() if e not in (COPY, TRUTH)}
        known = sorted((m for m in means.values() if m is not None), reverse=better == "higher")
        ranks[metric] = {e: known.index(m) + 1 for e, m in means.items() if m is not None}
    return ranks


class _Scorer:
    """One protocol's figures from the outcomes of every editor."""

    def __init__(self, name: str, protocol: Protocol, level: float, outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        self.name, self.protocol, self.level, self.outcomes = name, protocol, level, outcomes
        self.groups = sorted({o.case.group for results in outcomes.values() for o in results})
        self.source = {o.case.id: o for o in outcomes.get(COPY, []) if o.kind == "scored"}

    def row(self, outcomes: Sequence[Outcome]) -> Json:
        # An answer is scored if any of its judgements is.
        ordered = sorted(outcomes, key=lambda o: o.kind == "scored")
        answers = {(o.case.id, o.seed): o for o in ordered}.values()
        kinds = Counter(o.kind for o in answers)
        return {
            "cases": len({o.case.id for o in outcomes}),
            "seeds": len({o.seed for o in outcomes}),
            "judgements": len({o.repeat for o in outcomes}),
            "scored": kinds["scored"],
            "missing": kinds["missing"] + kinds["refused"] + kinds["error"],
            "refused": kinds["refused"],
            "black": sum(o.black for o in answers),
            "unparsed": sum(o.kind == "unparsed" for o in outcomes),
            "unjudged": sum(o.kind == "unjudged" for o in outcomes),
            "reasons": dict(sorted(Counter(o.reason for o in outcomes if o.reason).items())),
            "metrics": {metric: self._figure(outcomes, metric) for metric in self.protocol.metrics},
            "with_missing": self._with_missing(outcomes),
            "groups": {
                group: {
                    metric: self._mean(self._by_case([o for o in outcomes if o.case.group == group], metric))
                    for metric in self.protocol.metrics
                }
                for group in self.groups
            },
            "variances": {metric: self._variances(outcomes, metric) for metric in self.protocol.metrics},
        }

    def _value(self, outcome: Outcome, metric: str) -> float | None:
        if outcome.kind != "scored" or (self.protocol.drops_black and outcome.black):
            return None
        return outcome.values[self.name][metric]

    def _by_case(self, outcomes: Sequence[Outcome], metric: str) -> dict[str, tuple[Case, float]]:
        """Each case's mean over its seeds and judgements, if known."""
        by_case: dict[str, tuple[Case, list[float]]] = {}
        for outcome in outcomes:
            if (value := self._value(outcome, metric)) is not None:
                by_case.setdefault(outcome.case.id, (outcome.case, []))[1].append(value)
        return {name: (case, sum(values) / len(values)) for name, (case, values) in by_case.items()}

    def _figure(self, outcomes: Sequence[Outcome], metric: str) -> Json:
        """The overall figure; null, with the reason, if a group of the protocol has no known value."""
        cells = self._by_case(outcomes, metric)
        estimate = self._mean(cells, self.protocol.by_group)
        missing = [group for group in self.groups if group not in {case.group for case, _ in cells.values()}]
        if not self.protocol.by_group or not cells or not missing:
            return estimate
        return dict.fromkeys(estimate) | {"n": estimate["n"], "error": f"nothing is known of {', '.join(missing)}"}

    def _mean(self, cells: Mapping[str, tuple[Case, float]], by_group: bool = False) -> Json:
        """{mean, low, high, n}: low and high are None without an interval; all are None without known values."""
        families = [case.family or case.id for case, _ in cells.values()]
        groups = [case.group for case, _ in cells.values()] if by_group else None
        return statistics.figure([value for _, value in cells.values()], families, groups, self.level)

    def _with_missing(self, outcomes: Sequence[Outcome]) -> Json | None:
        """The means with a value for every missing or refused answer: the source's own, or the worst if copying the
        source is perfect or its value is unknown. None if nothing is missing."""
        absent = {o.case.id for o in outcomes if o.kind in ("refused", "missing", "error")}
        if not absent:
            return None
        figures = {}
        for metric, better in self.protocol.metrics.items():
            if not self.source and metric not in self.protocol.perfect_by_copying:
                figures[metric] = dict(statistics.UNKNOWN)  # the control was not asked for
                continue
            cells = self._by_case(outcomes, metric)
            for case in sorted(absent):
                some = [o for o in outcomes if o.case.id == case]
                known = [v for o in some if (v := self._filled(o, metric, better)) is not None]
                if known:
                    cells[case] = (some[0].case, sum(known) / len(known))
            figures[metric] = self._mean(cells, self.protocol.by_group)
        return figures

    def _filled(self, outcome: Outcome, metric: str, better: str) -> float | None:
        if outcome.kind not in ("refused", "missing", "error"):
            return self._value(outcome, metric)
        source = self.source.get(outcome.case.id)
        value = None if source is None else source.values[self.name][metric]
        if value is None or metric in self.protocol.perfect_by_copying:
            return 0.0 if better == "higher" else 1.0
        return value

    def _variances(self, outcomes: Sequence[Outcome], metric: str) -> Json:
        """Variances of one value between cases, seeds and judgements, and each seed's mean; None without
        repetitions."""
        cells = [
            (o.case.id, o.seed, o.repeat, value) for o in outcomes if (value := self._value(o, metric)) is not None
        ]
        by_group, means = self.protocol.by_group, []
        for seed in sorted({seed for _, seed, _, _ in cells}):
            by_case = self._by_case([o for o in outcomes if o.seed == seed], metric)
            means.append(self._mean(by_case, by_group)["mean"])
        return vars(statistics.variances(cells)) | {"mean_by_seed": means if len(means) > 1 else None}

    def differences(self) -> list[Json]:
        """Every editor minus the control that copies, and minus the editors before it, on the cases that both answered.

        p is corrected by Holm's method for the number of tests on the metric.
        """
        editors = [editor for editor in self.outcomes if editor not in (COPY, TRUTH)]
        pairs = [
            (editor, other)
            for place, editor in enumerate(editors)
            for other in [*([COPY] if self.outcomes.get(COPY) else []), *editors[:place]]
        ]
        differences: list[Json] = []
        for editor, other in pairs:
            compared = {metric: self._difference(editor, other, metric) for metric in self.protocol.metrics}
            if any(one["n"] for one in compared.values()):
                differences.append({"editor": editor, "minus": other, "metrics": compared})
        for metric in self.protocol.metrics:
            corrected = statistics.holm([row["metrics"][metric]["p"] for row in differences])
            for row, p in zip(differences, corrected, strict=True):
                row["metrics"][metric]["p_corrected"] = p
        return differences

    def _difference(self, editor: str, other: str, metric: str) -> Json:
        ours, theirs = (self._by_case(self.outcomes[name], metric) for name in (editor, other))
        both = [case for case in ours if case in theirs]
        if not both:
            return {**statistics.UNKNOWN, "p": None, "ratio": None, "wins": 0, "ties": 0, "losses": 0}
        cases = [ours[case][0] for case in both]
        a, b = ([side[case][1] for case in both] for side in (ours, theirs))
        apart = [x - y for x, y in zip(a, b, strict=True)]
        families = [case.family or case.id for case in cases]
        groups = [case.group for case in cases] if self.protocol.by_group else None
        estimate = statistics.mean(apart, families, groups, self.level)
        ratio = statistics.ratio(a, b, families, groups, self.level)
        sign = 1 if self.protocol.metrics[metric] == "higher" else -1
        better = Counter(0 if abs(d) < 1e-12 else 1 if d * sign > 0 else -1 for d in apart)
        return estimate.figure(len(both)) | {
            "p": estimate.p,
            "wins": better[1],
            "ties": better[0],
            "losses": better[-1],
            "ratio": None if ratio is None else {side: getattr(ratio, side) for side in ("mean", "low", "high")},
        }


def pairwise_board(
    name: str,
    protocol: Protocol,
    verdicts: Sequence[JudgedComparison],
    models: Models,
    level: float,
    benchmark: Benchmark,
) -> Json:
    """A pairwise protocol, JSON-ready: ratings with intervals, matches between each two editors, and the judge's
    consistency."""
    scored = [verdict for verdict in verdicts if verdict.kind == "scored"]
    matches = [
        statistics.PairwiseResult(verdict.case.id, dimension, verdict.first, verdict.second, winner)
        for verdict in scored
        for dimension, winner in verdict.winners.items()
        if winner is not None
    ]
    group_of = {verdict.case.id: verdict.case.group for verdict in scored}

    def ratings(of: Sequence[statistics.PairwiseResult], draws: int = 100) -> Json:
        strengths = statistics.strengths(of, level, draws, seed_of(name, "strengths"))
        return {player: vars(rating) for player, rating in strengths.items()}

    return _about(name, protocol, models, benchmark) | {
        "pairwise": True,
        "cases": len({verdict.case.id for verdict in verdicts}),
        "compared": len(scored),
        "unparsed": sum(verdict.kind == "unparsed" for verdict in verdicts),
        "unjudged": sum(verdict.kind == "unjudged" for verdict in verdicts),
        "reasons": dict(sorted(Counter(v.reason for v in verdicts if v.reason).items())),
        "ratings": ratings(matches, 200),
        "dimensions": {
            dimension: ratings([match for match in matches if match.dimension == dimension])
            for dimension in sorted({match.dimension for match in matches})
        },
        "groups": {
            group: ratings([match for match in matches if group_of[match.case] == group])
            for group in sorted(set(group_of.values()))
        },
        "pairs": _pairs(matches),
        "position": _position(scored),
    }


def _pairs(matches: Sequence[statistics.PairwiseResult]) -> list[Json]:
    """Wins, ties and losses of each two players, and the two-sided p of a sign test over cases, corrected by Holm's
    method. A case counts once, for the player it favours overall, because its dimensions, seeds and judgements are not
    independent."""
    tally: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for match in matches:
        one, other = sorted((match.first, match.second))
        winner = {"first": match.first, "second": match.second, "tie": "tie"}[match.outcome]
        tally.setdefault((one, other), {}).setdefault(match.case, Counter())[winner] += 1
    pairs: list[Json] = []
    for (one, other), cases in sorted(tally.items()):
        whole = sum(cases.values(), Counter[str]())
        leads = [count[one] - count[other] for count in cases.values()]
        p = statistics.sign(sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads))
        counts = {"wins": whole[one], "ties": whole["tie"], "losses": whole[other], "cases": len(cases)}
        pairs.append({"editor": one, "against": other, **counts, "p": p})
    for row, corrected in zip(pairs, statistics.holm([row["p"] for row in pairs]), strict=True):
        row["p_corrected"] = corrected
    return pairs


def _position(verdicts: Sequence[JudgedComparison]) -> Json:
    """How often the judge prefers the first-shown answer, and how often both orders agree."""
    both = [
        (in_order, other)
        for verdict in verdicts
        for dimension, in_order in verdict.in_order.items()
        if in_order is not None and (other := verdict.reversed.get(dimension)) is not None
    ]
    shown = Counter([*(in_order for in_order, _ in both), *(REVERSED[other] for _, other in both)])
    decided = shown["first"] + shown["second"]
    return {
        "first_preferred": shown["first"] / decided if decided else None,
        "orders_agree": sum(in_order == other for in_order, other in both) / len(both) if both else None,
        "n": len(both),
    }
