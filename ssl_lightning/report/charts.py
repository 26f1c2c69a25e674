"""Charts as inline SVG, which take the colors of the page and need no script: histograms, bars and a log-log curve."""

import html
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
BINS = 24
_STEPS = (1, 2, 5)


def histogram(
    values: Shaped[np.ndarray, "N"], title: str, label: str, *, factor: float = 1.0, ticks: Sequence[float | int] = ()
) -> str:
    """A histogram with a logarithmic axis, as a figure; empty without values above 0.

    Args:
        values: Of each image.
        title: The caption.
        label: Of the axis, with its unit.
        factor: Multiplies the values.
        ticks: Values of the axis that are labeled; round numbers by default.
    """
    shown = np.asarray(values, dtype=np.float64) * factor
    shown = shown[shown > 0]
    if not len(shown):
        return ""
    low, high = float(shown.min()), float(shown.max())
    if high / low < 1.5:
        low, high = low / 1.3, high * 1.3
    edges = np.geomspace(low, high, BINS + 1)
    edges[-1] *= 1 + 1e-9
    counts = np.histogram(shown, edges)[0]
    first, last = math.log(edges[0]), math.log(edges[-1])

    def across(value: float | int) -> float:
        return LEFT + (math.log(value) - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    most = int(counts.max())
    parts = [_horizontal_lines(most)]
    for count, start, end in zip(counts.tolist(), edges, edges[1:], strict=False):
        x, width = across(start), across(end) - across(start) - 1
        height = count / most * (HEIGHT - TOP - BOTTOM)
        height = max(height, 1.0) if count else 0.0
        note = f"{_short(start)} to {_short(end)}: {count:,}"
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}"><title>{html.escape(note)}</title></rect>'
        )
    named = [value for value in (ticks or _round_values(low, high)) if edges[0] <= value <= edges[-1]]
    parts += [_tick(across(value), _short(value)) for value in named]
    middle = float(np.median(shown))
    x = across(middle)
    parts.append(
        f'<line class="median" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
        f"<title>median {_short(middle)}</title></line>"
    )
    least, most_value = float(shown.min()), float(shown.max())
    note = f"{title}: median {_short(middle)}, {_short(least)} to {_short(most_value)}"
    if least == most_value:
        note = f"{title}: {_short(middle)} in all"
    return _figure(parts, note, label)


def bars(counts: Sequence[tuple[str, int]], title: str, most: int = 8) -> str:
    """Horizontal bars with their names, numbers and shares; of more than `most`, the last one holds the rest.

    Args:
        counts: Names and numbers, the largest first.
        title: The caption.
        most: Largest number of bars.
    """
    if not counts:
        return ""
    total = max(1, sum(count for _, count in counts))
    shown = list(counts)
    if len(shown) > most:
        rest = shown[most - 1 :]
        shown = [*shown[: most - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    largest = max(count for _, count in shown) or 1
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td><i style="width:{100 * count / largest:.1f}%"></i></td>'
        f'<td class="number">{count:,}</td><td class="number">{_percent(count / total)}</td></tr>'
        for name, count in shown
    )
    return f'<figure class="bars"><figcaption>{html.escape(title)}</figcaption><table>{rows}</table></figure>'


def size_curve(sizes: Sequence[int], title: str, label: str) -> str:
    """Sizes over their rank, the largest first, with logarithmic axes, as a figure; empty without sizes above 0.

    Args:
        sizes: Such as those of clusters.
        title: The caption.
        label: Of the horizontal axis.
    """
    found = sorted((size for size in sizes if size > 0), reverse=True)
    if not found:
        return ""
    right, low, high = max(2, len(found)), found[-1], max(found[0], found[-1] + 1)
    low = min(low, high / 10)

    def place(rank: float | int, size: float | int) -> tuple[float, float]:
        x = LEFT + math.log(rank) / math.log(right) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - math.log(size / low) / math.log(high / low) * (HEIGHT - TOP - BOTTOM)
        return x, y

    parts = []
    for value in _round_values(low, high):
        y = place(1, value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>')
    parts += [_tick(place(value, high)[0], _short(value)) for value in _round_values(1, right)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(n, size) for n, size in enumerate(found, start=1)))
    parts.append(f'<polyline class="curve" points="{points}"/>')
    mean = sum(found) / len(found)
    y = place(1, mean)[1]
    parts.append(
        f'<line class="median" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}">'
        f"<title>all equal: {_short(mean)}</title></line>"
    )
    return _figure(parts, title, label)


def _figure(parts: Sequence[str], title: str, label: str) -> str:
    axis = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(label)}</text>'
    )
    return (
        f'<figure><svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}{axis}</svg><figcaption>{html.escape(title)}</figcaption></figure>"
    )


def _horizontal_lines(most: int) -> str:
    """Lines at round counts, with their numbers, and the axis."""
    step = _step(most)
    lines = []
    for value in range(0, most + 1, step):
        y = HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{_short(value)}</text>')
    return "".join(lines)


def _step(most: int) -> int:
    """A round step with about four lines up to a number."""
    power = 1
    while True:
        for each in _STEPS:
            if most / (power * each) <= 4.5:
                return power * each
        power *= 10


def _tick(x: float | int, text: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{text}</text>'


def _round_values(low: float | int, high: float | int) -> list[float]:
    """Round numbers in a range: powers of ten for a wide one, with 2 and 5 times as many for a narrow one."""
    factors = (1,) if high / low > 3000 else (1, 3) if high / low > 300 else _STEPS
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in values if low * 0.999 <= value <= high * 1.001]


def _percent(share: float | int) -> str:
    return "&lt; 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _short(value: float | int) -> str:
    """A number of few characters, such as 0.05, 12, 3.4k and 2M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scale = 1e3 if sign == "k" else size
            return f"{value / scale:.3g}{sign}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
