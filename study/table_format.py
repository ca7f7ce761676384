"""A table as Markdown and LaTeX, and how results are written in its cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a dry run does without pandas
    import pandas as pd

NO_RESULT, NOT_PLANNED = "…", "–"
LATEX_ESCAPES = {  # special characters of LaTeX, and those that its fonts lack
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
    "<": r"$<$",
    ">": r"$>$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass
class Table:
    """A table of text.

    Attributes:
        key: its name in the study's file.
        title: its heading.
        note: what is printed below it.
        cells: strings by row label and column heading.
    """

    key: str
    title: str
    note: str
    cells: "pd.DataFrame"

    def to_markdown(self) -> str:
        """The table with its title and its note."""
        lines = [["", *self.cells.columns], *([label, *row] for label, row in self.rows())]
        head, *body = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        text = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]
        return "\n".join([f"## {self.title}", "", *text, "", self.note, ""])

    def to_latex(self) -> str:
        """A table environment, which needs no LaTeX package."""
        style = self.cells.style.format(latex_escape)
        style = style.format_index(latex_escape, axis="index").format_index(latex_escape, axis="columns")
        style = style.set_table_styles(
            [{"selector": rule, "props": ":hline;"} for rule in ("toprule", "midrule", "bottomrule")]
        )
        return style.to_latex(
            column_format="l" + "c" * len(self.cells.columns),
            caption=latex_escape(f"{self.title}. {self.note}"),
            position_float="centering",
        )

    def rows(self) -> list[tuple[str, list[str]]]:
        """The label and the cells of each row."""
        return [(str(label), list(row)) for label, row in zip(self.cells.index, self.cells.to_numpy(), strict=True)]


def latex_escape(text: object) -> str:
    """Plain text as LaTeX source."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in str(text))


def format_score(value: float) -> str:
    """A score between 0 and 1 with three digits: .906."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def mean_and_deviation(values: Sequence[float]) -> str:
    """The mean and the sample standard deviation of several scores: .906 ± .012."""
    return f"{format_score(fmean(values))} ± {format_score(stdev(values))}"


def format_scores(pairs: Sequence[tuple[float, float]], planned: int = 1) -> str:
    """M_J / M_F of one run, or their mean ± sample standard deviation over the runs that are done.

    Args:
        pairs: (M_J, M_F) of each run that is done.
        planned: the number of runs, done or not.
    """
    if len(pairs) == 1:
        text = " / ".join(map(format_score, pairs[0]))
    else:
        text = " / ".join(map(mean_and_deviation, zip(*pairs, strict=True)))
    missing = f" of {planned}" if len(pairs) < planned else ""
    return f"{text} (n = {len(pairs)}{missing})" if planned > 1 else text
