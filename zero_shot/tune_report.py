"""What `zero_shot.tune` shows of a search: a table of the option sets, and a heat map over two options."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from utils.cli import InputError
from utils.figures import default_style
from zero_shot.search_space import OptionSet, Values

PREFERRED = ("audioclip.amplitude", "audioclip.reverse")  # which belong together
METRICS = ("m_j", "m_f", "m_f_whole_set", "iou_dataset")
TOP = 5  # sets in the printed table

Results = Sequence[dict[str, Any]]  # metrics of each set, in the order of the sets


def ranking(results: Results) -> list[int]:
    """Numbers of the sets by descending M_J, the first on ties."""
    return sorted(range(len(results)), key=lambda number: -results[number]["m_j"])


def results_csv(sets: Sequence[OptionSet], results: Results) -> str:
    """All sets by descending M_J; set 0 is the row's own."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["set", *METRICS, *sets[0]])
    for number in ranking(results):
        writer.writerow([number, *(results[number][name] for name in METRICS), *sets[number].values()])
    return text.getvalue()


def top_table(sets: Sequence[OptionSet], results: Results) -> str:
    """The best sets and the row's own, with the options in which these sets differ."""
    order = ranking(results)
    shown = list(dict.fromkeys([*order[:TOP], 0]))
    differing = [name for name in sets[0] if len({sets[number][name] for number in shown}) > 1]
    lines = [["M_J", "M_F", *differing]]
    for number in shown:
        values = [str(sets[number][name]) for name in differing]
        own = " (the row's own)" if number == 0 else ""
        lines.append([*(f"{results[number][name]:.4f}" for name in ("m_j", "m_f")), *values, own])
    lines[0].append("")
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def heatmap_options(values: Values, asked: Sequence[str] | None) -> list[str]:
    """The two options of the heat map; fewer if not so many options have more than one value.

    Args:
        values: that are searched.
        asked: on the command line.

    Raises:
        InputError: for an option that is not searched, or twice the same.
    """
    several = [name for name, each in values.items() if len(each) > 1]
    for name in asked or []:
        if name not in several:
            raise InputError(f"--heatmap {name}: does not vary in this search; choose from {', '.join(several)}")
    if asked and asked[0] == asked[1]:
        raise InputError(f"--heatmap: {asked[0]} twice; choose two options")
    if asked:
        return list(asked)
    return list(PREFERRED) if set(PREFERRED) <= set(several) else several[:2]


def best_per_cell(values: Values, options: Sequence[str], sets: Sequence[OptionSet], results: Results) -> np.ndarray:
    """The highest M_J of the sets with each value of the first option (rows) and the second (columns); NaN if none."""
    first, second = options
    cells = np.full((len(values[first]), len(values[second])), np.nan)
    for chosen, metrics in zip(sets, results, strict=True):
        place = values[first].index(chosen[first]), values[second].index(chosen[second])
        cells[place] = np.fmax(cells[place], metrics["m_j"])
    return cells


def heatmap_png(cells: np.ndarray, values: Values, options: Sequence[str], split: str) -> bytes:
    """Draw the cells of `best_per_cell`.

    Args:
        cells: (rows, columns).
        values: that are searched.
        options: of the rows and of the columns.
        split: that M_J is of.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure  # slow to import

    buffer = io.BytesIO()
    with default_style():
        height, width = cells.shape
        figure = Figure(figsize=(2.5 + 0.75 * width, 1.6 + 0.5 * height), layout="constrained")
        panel = figure.subplots()
        image = panel.imshow(cells, cmap="viridis", aspect="auto")
        low, high = np.nanmin(cells), np.nanmax(cells)
        for (row, column), value in np.ndenumerate(cells):
            dark = np.isnan(value) or value > (low + high) / 2
            text = "–" if np.isnan(value) else f"{value:.3f}"
            panel.text(column, row, text, ha="center", va="center", color="black" if dark else "white", fontsize=8)
        panel.set_xticks(range(width), [str(value) for value in values[options[1]]])
        panel.set_yticks(range(height), [str(value) for value in values[options[0]]])
        panel.set(xlabel=options[1], ylabel=options[0], title=f"best M_J on {split} in each cell")
        figure.colorbar(image)
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
