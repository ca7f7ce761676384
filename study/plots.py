"""The plots of a study's page, as SVG in the page's own text color."""

import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from study.table_format import format_score
from utils.figures import default_style

INK = "#010203"  # placeholder for the page's text color, light or dark
WIDTH = 5.4  # inches of 96 CSS pixels: legible on a phone
COLORS = ("#ff7828", "#8896a8", "#3f8fd2", "#3faa66", "#b065c8", "#c8a020")  # visible on white and on black
SERIES = ("corrected", "published")  # always have the first two colors
MARKERS = "osD^vP"
STYLE: dict[Any, Any] = {"font.size": 9, "svg.fonttype": "none", "text.parse_math": False}  # text as text, $ as $


@dataclass(frozen=True)
class Bar:
    """A bar.

    Attributes:
        row: its label.
        series: decides its color.
        values: one for each seed.
        gray: draw it in gray, as a baseline of the others.
    """

    row: str
    series: str
    values: Sequence[float]
    gray: bool = False


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def bars(name: str, data: Sequence[Bar]) -> str:
    """Plot horizontal bars from 0 to 1, with a group for each row in the order given and a color for each series.

    Args:
        name: of the plot, unique on a page.
        data: the bars; each pair of row and series once.

    Returns:
        An <svg> element.
    """
    rows, series = list(dict.fromkeys(b.row for b in data)), list(dict.fromkeys(b.series for b in data))
    series.sort(key=lambda each: SERIES.index(each) if each in SERIES else len(SERIES))
    places, level = {}, 0.0
    for row in rows:  # from the top
        for each in series:
            if any((b.row, b.series) == (row, each) for b in data):
                places[row, each] = level
                level += 1.0
        level += 0.6
    with default_style(**STYLE, **{"svg.hashsalt": name}):
        figure, axes = _axes(0.21 * level + 0.5)
        for bar in sorted(data, key=lambda bar: series.index(bar.series)):
            mean, deviation = mean_and_deviation(bar.values)
            color = "#b4b4b4" if bar.gray else COLORS[series.index(bar.series) % len(COLORS)]
            y = places[bar.row, bar.series]
            label = None if bar.gray else bar.series
            axes.barh(y, mean, 0.86, color=color, label=label)
            if deviation:
                axes.errorbar(mean, y, xerr=deviation, color=INK, capsize=2, linewidth=0.8)
            axes.text(mean + deviation + 0.012, y, format_score(mean), va="center", color=INK, fontsize=8)
        middles = [statistics.fmean(p for (each, _), p in places.items() if each == row) for row in rows]
        axes.set_yticks(middles, [_wrap_label(row) for row in rows], fontsize=8)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_ylim(level - 1, -0.7)
        axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        _legend(figure, axes)
        return _svg(figure)


def scaling(name: str, lines: Mapping[str, Mapping[float, Sequence[float]]]) -> str:
    """Plot M_J against the fraction of the training clips.

    Args:
        name: of the plot, unique on a page.
        lines: for each model, the values of its seeds by fraction.

    Returns:
        An <svg> element.
    """
    with default_style(**STYLE, **{"svg.hashsalt": name}):
        figure, axes = _axes(3.0)
        for place, (model, points) in enumerate(lines.items()):
            fractions = sorted(points)
            drawn = [mean_and_deviation(points[fraction]) for fraction in fractions]
            axes.errorbar(
                [100 * fraction for fraction in fractions],
                [mean for mean, _ in drawn],
                [deviation for _, deviation in drawn],
                color=COLORS[place % len(COLORS)],
                marker=MARKERS[place % len(MARKERS)],
                capsize=3,
                label=model,
            )
        axes.set_xlim(0, 105)
        axes.set_xticks(sorted({100 * fraction for points in lines.values() for fraction in points}))
        axes.set_xlabel("% of the training clips", color=INK)
        axes.set_ylabel("M_J", color=INK)
        axes.margins(y=0.15)
        axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
        _legend(figure, axes)
        return _svg(figure)


def curves(name: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str) -> str:
    """Plot lines over values from 0 to 1.

    Args:
        name: of the plot, unique on a page.
        lines: the horizontal and the vertical values by label.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.

    Returns:
        An <svg> element.
    """
    with default_style(**STYLE, **{"svg.hashsalt": name}):
        figure, axes = _axes(3.4)
        for place, (label, (x, y)) in enumerate(lines.items()):
            color, style = COLORS[place % len(COLORS)], ("-", "--", ":")[place // len(COLORS) % 3]
            axes.plot(x, y, style, color=color, marker=MARKERS[place % len(MARKERS)], markersize=3, label=label)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel(x_label, color=INK)
        axes.set_ylabel(y_label, color=INK)
        axes.grid(color=INK, alpha=0.15, linewidth=0.6)
        _legend(figure, axes)
        return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(colors=INK)
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    """Put a legend below the plot, with each series once; none for a single series."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if len(once) > 1:
        figure.legend(
            once.values(), once, loc="outside lower center", ncols=min(3, len(once)), frameon=False, labelcolor=INK
        )


def _wrap_label(label: str, width: int = 24) -> str:
    """A label on two lines if it is long."""
    if len(label) <= width:
        return label
    cut = max(label.rfind(" ", 0, len(label) * 2 // 3), label.find(" "))
    return label if cut < 0 else f"{label[:cut]}\n{label[cut + 1 :]}"


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element for an HTML page."""
    text = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg[svg.index("<svg") :])  # not needed within HTML
    return svg.replace(INK, "currentColor")
