"""The figures of `scale` as an SVG: two small charts side by side, without a library."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 44, 40  # margins of one chart
_STEPS = (1, 2, 5, 10)
_STYLE = """
  text { font: 12px sans-serif; fill: #333 } .title { font-weight: bold } .tick { fill: #666; font-size: 11px }
  .grid { stroke: #ddd } .a { stroke: #0b6fa4; fill: #0b6fa4 } .b { stroke: #c0392b; fill: #c0392b }
  polyline { fill: none !important; stroke-width: 2 } text.a, text.b { stroke: none }
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart."""

    name: str
    values: Sequence[float]


def svg(found: dict[str, Any]) -> str:
    """What `scale.measure` found."""
    cyclers, each = list(found["cyclers"]), list(found["cyclers"].values())
    cpu = [Curve("", [1000 * one["cpu_s_per_1000_readings"] for one in each])]
    ages = [Curve("p99", [one["age_p99_ms"] for one in each]), Curve("p50", [one["age_p50_ms"] for one in each])]
    under = f"cyclers of {found['channels_each']} channels at 1 Hz"
    charts = [
        _chart("CPU per 1000 readings, ms", under, cyclers, cpu),
        f'<g transform="translate({WIDTH} 0)">',
        _chart("Answer to subscriber, ms", under, cyclers, ages),
        "</g>",
    ]
    size = f'width="{2 * WIDTH}" height="{HEIGHT}" viewBox="0 0 {2 * WIDTH} {HEIGHT}"'
    background = f'<rect width="{2 * WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{background}'
    return "\n".join([head, *charts, "</svg>"]) + "\n"


def _chart(title: str, under: str, names: Sequence[str], curves: Sequence[Curve]) -> str:
    """One chart; the x axis has a place for each name, the y axis begins at 0."""
    top = _round_up(max(value for curve in curves for value in curve.values))
    parts = [f'<text class="title" x="{LEFT}" y="22">{title}</text>']
    parts.append(f'<text class="tick" x="{LEFT}" y="{HEIGHT - 6}">{under}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _y(share)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{top * share:g}</text>')
    places = [_x(index, len(names)) for index in range(len(names))]
    for x, name in zip(places, names, strict=True):
        parts.append(f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{name}</text>')
    for colour, curve in zip("ab", curves, strict=False):
        points = [(x, _y(value / top)) for x, value in zip(places, curve.values, strict=True)]
        parts.append(f'<polyline class="{colour}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>')
        parts += [f'<circle class="{colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in points]
        x, y = points[-1]
        parts.append(f'<text class="{colour}" x="{x - 6}" y="{y - 8}" text-anchor="end">{curve.name}</text>')
    return "\n".join(parts)


def _x(index: int, count: int) -> float:
    room = WIDTH - LEFT - RIGHT
    return round(LEFT + room * (index + 0.5) / count, 1)


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _round_up(value: float) -> float:
    """A number for the end of an axis."""
    power = 1e-6
    while power * 10 < value:
        power *= 10
    return float(f"{next(step * power for step in _STEPS if step * power >= value):g}")
