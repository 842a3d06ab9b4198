"""Charts as SVG, for the browser and the report: a histogram with bounds, and a scatter plot of two scores.

Colours come from the page's style sheet by class, so that both follow the reader's light or dark setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from markupsafe import Markup

from crispedit.bounds import Bound
from crispedit.pipelines.viewing.distribution import Distribution
from crispedit.pipelines.viewing.queries import Row, short

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 200, 8, 22, 16
WIDE = 1280
"""Width of the drawing, including its margins."""

NamedBound = tuple[str, float, str]
"""A line of a chart: side ("min" or "max"), value, and where it applies ("all", or categories)."""


def bounds_of(bounds: Sequence[tuple[str, Bound]]) -> list[NamedBound]:
    """The lines of named bounds; those of equal value and side are one line."""
    names: dict[tuple[str, float], list[str]] = {}
    for name, bound in bounds:
        for side, value in (("min", bound.min), ("max", bound.max)):
            if value is not None:
                names.setdefault((side, value), []).append(name)
    return [(side, value, ", ".join(of)) for (side, value), of in names.items()]


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers from low to high, about `count` of them."""
    step = (high - low) / count
    power = 10 ** math.floor(math.log10(step)) if step > 0 else 1.0
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= step)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def histogram(
    of: Distribution,
    bounds: Sequence[NamedBound],
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    handles: bool = False,
    ghosts: Sequence[NamedBound] = (),
) -> Markup:
    """Stacked bars of kept and other pairs, on a square-root scale so that small bins are visible, with a line at each
    bound; with `handles`, lines can be dragged. `ghosts` are the recipe's bounds, dashed beneath the others."""
    plot_height, step = height - BOTTOM - TOP, (width - 2 * LEFT) / len(of.kept)
    top = max(k + o for k, o in zip(of.kept, of.other, strict=True)) or 1
    parts = [
        _start(width, height, f"Histogram of {of.score}: {of.known} pairs from {short(of.low)} to {short(of.high)}", of)
    ]
    bin_width = (of.high - of.low) / len(of.kept)
    for index, (kept, other) in enumerate(zip(of.kept, of.other, strict=True)):
        if not kept + other:
            continue
        tall = plot_height * math.sqrt((kept + other) / top)
        below = tall * kept / (kept + other)
        x, base = LEFT + index * step, height - BOTTOM
        start = of.low + index * bin_width
        title = f"{short(start)} to {short(start + bin_width)}: {kept} kept, {other} not"
        parts.append(f"<g><title>{title}</title>")
        for name, y, h in (("kept", base - below, below), ("other", base - tall, tall - below)):
            if h > 0:
                parts.append(f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{step - 1:.1f}" height="{h:.1f}"/>')
        parts.append("</g>")
    parts.append(_axis(of.low, of.high, width, height))
    drawn = {(side, value) for side, value, _ in bounds}
    for lines, handle, kind in ((ghosts, False, "bound ghost"), (bounds, handles, "bound")):
        for side, value, names in lines:
            if of.low <= value <= of.high:
                x = _x(value, of.low, of.high, width)
                covered = " covered" if kind != "bound" and (side, value) in drawn else ""
                parts.append(_bound_line(side, value, names, x, width, height, handle, kind + covered))
    parts.append("</svg>")
    return Markup("".join(parts))


def scatter(
    points: Sequence[Row],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_bounds: Sequence[NamedBound],
    y_bounds: Sequence[NamedBound],
    names: tuple[str, str],
) -> Markup:
    """A point per pair, linked to it, and the bounds of both scores."""
    height = 420
    parts = [_start(WIDE, height, f"Scatter of {names[0]} and {names[1]}: {len(points)} pairs", None)]
    for side, value, of in y_bounds:
        if y_range[0] <= value <= y_range[1]:
            y = _y(value, *y_range, height)
            parts.append(f'<g class="bound"><title>{escape(f"{names[1]} {side} {short(value)}: {of}")}</title>')
            parts.append(f'<line x1="{LEFT}" x2="{WIDE - LEFT}" y1="{y:.1f}" y2="{y:.1f}"/></g>')
    for point in points:
        x, y = (_x(_within(point["x"], x_range), *x_range, WIDE), _y(_within(point["y"], y_range), *y_range, height))
        kind = "kept" if point["outcome"] == "kept" else "other"
        parts.append(
            f'<a href="/pair/{escape(point["key"])}" tabindex="-1">'
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
        )
        parts.append(
            f"<title>{short(point['x'])}, {short(point['y'])}: {escape(point['outcome'])}</title></circle></a>"
        )
    parts.append(_axis(*x_range, WIDE, height))
    for tick in ticks(*y_range):
        y = _y(tick, *y_range, height) - 3
        parts.append(f'<text class="tick" x="{WIDE - LEFT}" y="{y:.1f}" text-anchor="end">{short(tick)}</text>')
    parts += [
        _bound_line(s, v, n, _x(v, *x_range, WIDE), WIDE, height, False)
        for s, v, n in x_bounds
        if x_range[0] <= v <= x_range[1]
    ]
    parts.append("</svg>")
    return Markup("".join(parts))


def bar(parts: Sequence[tuple[str, float]], label: str) -> Markup:
    """A bar of adjacent shares (class, 0 to 1)."""
    rects, x = [], 0.0
    for name, share in parts:
        rects.append(f'<rect class="{escape(name)}" x="{1000 * x:.1f}" width="{1000 * share:.1f}" height="10"/>')
        x += share
    return Markup(
        f'<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{''.join(rects)}</svg>"
    )


def _start(width: int, height: int, label: str, of: Distribution | None) -> str:
    data = "" if of is None else f' data-low="{of.low!r}" data-high="{of.high!r}"'
    kind = "chart wide" if width > WIDTH else "chart"
    # To a screen reader, a chart with links or handles is a group, not an image.
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="group" aria-label="{escape(label)}"{data}>'


def _axis(low: float, high: float, width: int, height: int) -> str:
    base = height - BOTTOM
    parts = [f'<line class="axis" x1="{LEFT}" x2="{width - LEFT}" y1="{base}" y2="{base}"/>']
    for tick in ticks(low, high):
        x = _x(tick, low, high, width)
        anchor = "start" if x < 30 else "end" if x > width - 30 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="{anchor}">{short(tick)}</text>')
    return "".join(parts)


def _bound_line(
    side: str, value: float, names: str, x: float, width: int, height: int, handle: bool, kind: str = "bound"
) -> str:
    title = escape(f"{side} {short(value)}: {names}")
    word = escape(f"{'≥' if side == 'min' else '≤'} {short(value)}")
    beside, anchor = (-6, "end") if x > width - 90 else (6, "start")
    row = ' dy="1.2em"' if "ghost" in kind else ""  # below the label of the bound that was moved
    text = f'<text x="{x + beside:.1f}" y="{TOP - 3}"{row} text-anchor="{anchor}">{word}</text>'
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - BOTTOM}"/>'
    if not handle:
        return f'<g class="{kind}"><title>{title}</title>{line}{text}</g>'
    return (
        f'<g class="bound handle" data-side="{side}" data-value="{value!r}" tabindex="0" role="slider" '
        f'aria-label="{side} bound" aria-valuenow="{value!r}" aria-valuetext="{short(value)}">'
        f'<rect class="grip" x="{x - 10:.1f}" y="0" width="20" height="{height - BOTTOM}"/>{line}'
        f'<circle cx="{x:.1f}" cy="{(height - BOTTOM) / 2:.0f}" r="7"/>{text}</g>'
    )


def _x(value: float, low: float, high: float, width: int) -> float:
    return LEFT + (value - low) / (high - low) * (width - 2 * LEFT)


def _y(value: float, low: float, high: float, height: int) -> float:
    return height - BOTTOM - (value - low) / (high - low) * (height - BOTTOM - TOP)


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])
