"""A table as Markdown, LaTeX and HTML."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

LATEX = {  # what LaTeX reads as something else, or its fonts lack
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "…": r"\ldots{}",
    "<": r"$<$",
    ">": r"$>$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


@dataclass
class Table:
    """A table of text, whose first column names the rows.

    columns: heads, with that of the first column. rows: (name, cells). values: M_J of every run behind a cell, by
    (row, column).
    """

    title: str
    note: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    values: Mapping[tuple[str, str], list[float]] = field(default_factory=dict)

    def lines(self) -> list[list[str]]:
        """The heads, then the rows with their names."""
        return [self.columns, *([name, *cells] for name, cells in self.rows)]

    def to_markdown(self) -> str:
        """The table with its title and its note."""
        head, *body = [[cell.replace("|", r"\|") for cell in line] for line in self.lines()]
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *body)]
        return "\n".join([f"## {self.title}", "", *lines, "", self.note, ""])

    def to_latex(self) -> str:
        """A table environment, which needs no package."""
        head, *body = [" & ".join(map(latex, line)) + r" \\" for line in self.lines()]
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex(f'{self.title}. {self.note}')}}}",
                rf"\begin{{tabular}}{{l{'c' * (len(self.columns) - 1)}}}",
                *(r"\hline", head, r"\hline", *body, r"\hline"),
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def to_html(self) -> str:
        """A table element; title and note are left to the page."""
        head, *body = self.lines()
        rows = ["".join(_cell(cell, "td" if place else "th") for place, cell in enumerate(line)) for line in body]
        heads = "".join(_cell(cell, "th") for cell in head)
        return "\n".join(
            [
                f"<table><thead><tr>{heads}</tr></thead><tbody>",
                *(f"<tr>{row}</tr>" for row in rows),
                "</tbody></table>",
            ]
        )


def latex(text: str) -> str:
    """Plain text as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def _cell(text: str, element: str) -> str:
    return f"<{element}>{html.escape(text)}</{element}>"


def format_score(value: float) -> str:
    """A figure between 0 and 1 as tables have it: .906."""
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text


def format_scores(pairs: Sequence[tuple[float, float]], planned: int = 1) -> str:
    """M_J / M_F of a row: of one run, or mean ± standard deviation over several of `planned` runs."""
    if len(pairs) == 1:
        text = " / ".join(map(format_score, pairs[0]))
    else:
        several = zip(*pairs, strict=True)
        text = " / ".join(f"{format_score(fmean(values))} ± {format_score(stdev(values))}" for values in several)
    missing = f" of {planned}" if len(pairs) < planned else ""
    return f"{text} (n = {len(pairs)}{missing})" if planned > 1 else text
