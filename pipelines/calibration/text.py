"""The reports of calibrate as text for a reader: tables for a terminal, and Markdown."""

from collections.abc import Iterable, Mapping
from typing import Any

from crispedit.outcome import KEPT
from crispedit.pipelines.calibration.measured import GOOD


def table(report: Mapping[str, Any]) -> str:
    """The report for a reader: defects, then categories that fall short, then scores."""
    lines = [
        f"{report['pairs']} good pairs of {report['photographs']} photographs; rejected, under the recipe's bounds"
        " and under bounds learned on the other half of the photographs:",
        "",
        f"{'':<18}{'rows':>6}{'recipe':>9}{'learned':>9}  by",
    ]
    for entry in report["defects"]:
        by = ", ".join(f"{name} {share:.0%}" for name, share in list(entry["by_filter"].items())[:4])
        lines.append(
            f"{entry['defect']:<18}{entry['rows']:>6}{entry['rejected']:>9.1%}{entry['rejected_held_out']:>9.1%}  {by}"
        )
    duplicates = report["near_duplicates"]
    false = "unknown" if duplicates["false"] is None else f"{duplicates['false']:.2%}"
    lines += [
        "",
        f"near copies found at {duplicates['bits']} bits: {duplicates['detected']:.1%}; "
        f"strangers taken for copies: {false}",
        "",
        "by category, recipe / learned:",
    ]
    categories = sorted({c for entry in report["defects"] for c in entry["categories"]})
    lines.append(f"{'':<18}" + "".join(f"{category:>14}" for category in categories))
    for entry in report["defects"]:
        cells = [entry["categories"].get(category) for category in categories]
        lines.append(
            f"{entry['defect']:<18}"
            + "".join(f"{c['rejected']:>7.0%}/{c['rejected_held_out']:<6.0%}" if c else f"{'-':>14}" for c in cells)
        )
    lines += ["", f"{'score':<34}{'bound':>12}{'false':>8}{'for wanted':>12}  best at (AUC)"]
    for score in report["scores"]:
        areas = {name: told["auc"] for name, told in score["defects"].items() if told["auc"] is not None}
        best = ", ".join(f"{name} {areas[name]:.3f}" for name in sorted(areas, key=lambda name: -areas[name])[:3])
        many = "" if len(score["categories"]) > 2 else f" [{', '.join(score['categories'])}]"
        lines.append(
            f"{score['score']:<34}{score['side']:>4} {score['bound']:>7.4g}{score['false_rejects']:>8.1%}"
            f"{score['bound_for_wanted']:>12.4g}  {best}{many}"
        )
    if report["semantic"]:
        lines += [
            "",
            f"semantic defects by scores without a bound: AUC, then found and (falsely) rejected on the other half at"
            f" {report['false_rejects_wanted']:.0%} wanted; AUC by category:",
            f"{'':<18}{'score':<24}{'AUC':>7}{'found':>8}{'false':>8}  by category",
        ]
    for entry in sorted(report["semantic"], key=lambda entry: (entry["defect"], -entry["auc"])):
        by = ", ".join(f"{name} {area:.2f}" for name, area in entry["categories"].items() if area is not None)
        lines.append(
            f"{entry['defect']:<18}{entry['score'] + ':' + entry['side']:<24}{entry['auc']:>7.3f}"
            f"{entry['detected_held_out']:>8.1%}{entry['false_rejects_held_out']:>8.1%}  {by}"
        )
    return "\n".join(lines)


def markdown(report: Mapping[str, Any]) -> str:
    """The defects as Markdown tables for a README: structural ones by bounds, semantic ones by their best score."""
    lines = [
        f"{report['pairs']} good pairs of {report['photographs']} photographs.",
        "",
        "| defect | pairs | rejected | by bounds learned on the other half | mostly by |",
        "|---|---:|---:|---:|---|",
    ]
    for entry in report["defects"]:
        if entry["kind"] == "semantic":
            continue
        name = "none: false rejects" if entry["defect"] == GOOD else entry["defect"]
        by = ", ".join(f"`{filter_}`" for filter_ in list(entry["by_filter"])[:2])
        rejected, held_out = entry["rejected"], entry["rejected_held_out"]
        lines.append(f"| {name} | {entry['rows']} | {rejected:.1%} | {held_out:.1%} | {by} |")
    detected = report["near_duplicates"]["detected"]
    lines.append(f"| near duplicate | {report['pairs']} | {detected:.1%} | | `duplicate`, in `select` |")
    best = {entry["defect"]: entry for entry in sorted(report["semantic"], key=lambda entry: entry["auc"])}
    if best:
        lines += ["", "| semantic defect | best score | AUC | found | at false rejects |", "|---|---|---:|---:|---:|"]
    for name, entry in sorted(best.items()):
        detected, false = entry["detected_held_out"], entry["false_rejects_held_out"]
        lines.append(f"| {name} | `{entry['score']}` | {entry['auc']:.3f} | {detected:.1%} | {false:.1%} |")
    return "\n".join(lines)


def flips_table(moved: Mapping[tuple[str, str], int]) -> str:
    total = sum(moved.values())
    same = sum(count for (before, after), count in moved.items() if before == after)
    kept = sum(count for (before, after), count in moved.items() if (before == KEPT) != (after == KEPT))
    lines = [f"{total} keys: {same} verdicts equal, {total - same} differ, {kept} between kept and not", ""]
    for (before, after), count in sorted(moved.items(), key=lambda item: (-item[1], item[0])):
        if before != after:
            lines.append(f"{count:>7}  {before} -> {after}")
    return "\n".join(lines)


def labels_table(report: Mapping[str, Any]) -> str:
    """Agreement with a person's labels: the two-by-two table."""
    return "\n".join(
        [
            f"{report['compared']} of {report['labelled']} labelled pairs have a verdict",
            f"agreement {report['agreement']:.1%}, Cohen's kappa {_kappa(report['kappa'])}",
            f"{'':<16}{'filters keep':>14}{'filters reject':>16}",
            f"{'person keeps':<16}{report['both_keep']:>14}{report['only_person_keeps']:>16}",
            f"{'person rejects':<16}{report['only_filters_keep']:>14}{report['both_reject']:>16}",
        ]
    )


def learned_table(report: Mapping[str, Any]) -> str:
    """Agreement under the recipe's bounds beside bounds learned on the other groups, with 95 % intervals."""
    columns = {"recipe's bounds": report["recipe"], "learned on other groups": report["held_out"]}
    parts = [part for part in columns.values() if part is not None]

    def line(title: str, cells: Iterable[str]) -> str:
        return f"{title:<34}" + "".join(f"{cell:>28}" for cell in cells)

    def hits(group: Mapping[str, Any]) -> str:
        return "  ".join(f"{group[name]['hits']}/{group[name]['of']}" for name in ("good_rejected", "detected"))

    lines = [
        "",
        f"{report['pairs']} measured pairs of {report['groups']} groups; good pairs that may be rejected:"
        f" {report['false_rejects_wanted']:.0%}; shares with 95 % intervals",
        line("", list(columns)[: len(parts)]),
        line("agreement", (f"{part['agreement']:.1%}" for part in parts)),
        line("kappa", (_kappa(part["kappa"]) for part in parts)),
    ]
    for title, name in (("good rejected", "good_rejected"), ("bad found", "detected")):
        lines += [line(f"{title}: {key}", (_share(part[name][key]) for part in parts)) for key in parts[0][name]]
    lines += ["", "by group: good rejected, bad found"]
    lines += [line(group[:33], (hits(part["groups"][group]) for part in parts)) for group in parts[0]["groups"]]
    return "\n".join(lines)


def _share(share: Mapping[str, Any]) -> str:
    if not share["of"]:
        return "none"
    return f"{share['share']:.0%} of {share['of']} ({share['low']:.0%}-{share['high']:.0%})"


def _kappa(kappa: float | None) -> str:
    return "undefined" if kappa is None else f"{kappa:.3f}"
