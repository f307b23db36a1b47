"""A table as readers see it: its columns, the notes below it, and how it is written in Markdown and LaTeX."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from saliency_entropy.page import wording

# Signs that pdfLaTeX's usual fonts lack or print as others, and "[", which after a line break would be its argument.
LATEX = {"[": "{[}", "±": "$\\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$", "|": "$|$"}
LATEX_USE = (
    r"Needs booktabs. Wider than the page: \resizebox{\linewidth}{!}{\input{...}} of graphicx, or leave columns out."
)


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a shown table: which numbers it shows and how.

    Attributes:
        heading: above it.
        key: the column of the numbers; of a spread the columns are ``<key>_mean`` and ``<key>_std``, of an interval
            ``<key>low`` and ``<key>high``. Or a function that makes the text from a row.
        form: how the numbers are written: as they are, as a number, mean ± standard deviation, ``low to high``, or p.
        digits: after the decimal point.
        sign: "+" if a number above 0 has its sign.
        notes: sentences that a reader of the column needs, below the table.
    """

    heading: str
    key: str | Callable[[Mapping[str, Any]], str]
    form: Literal["text", "number", "spread", "interval", "p"] = "text"
    digits: int = 3
    sign: str = ""
    notes: Sequence[str] = ()

    def cell(self, row: Mapping[str, Any]) -> str:
        if not isinstance(self.key, str):
            return self.key(row)
        match self.form:
            case "number":
                return wording.number(row[self.key], self.digits, self.sign)
            case "spread":
                return wording.spread(row[f"{self.key}_mean"], row[f"{self.key}_std"], self.digits)
            case "interval":
                return wording.interval(row[f"{self.key}low"], row[f"{self.key}high"], self.digits, self.sign)
            case "p":
                return wording.p_value(row[self.key])
        return str(row[self.key])


@dataclass(frozen=True, eq=False)
class ShownTable:
    """A table as readers get it.

    Attributes:
        name: of its files and its anchor in the page.
        heading: above it.
        numbers: what its CSV holds.
        cells: what readers see, text only. Without any, the notes alone are shown, and there is no file.
        notes: sentences below it.
    """

    name: str
    heading: str
    numbers: pd.DataFrame
    cells: pd.DataFrame
    notes: list[str]

    @cached_property  # a page asks for it at every cell
    def word_columns(self) -> list[bool]:
        return [is_words(self.cells[name]) for name in self.cells]


def shown_table(
    name: str, heading: str, numbers: pd.DataFrame, columns: list[Column], rows: pd.DataFrame | None = None
) -> ShownTable:
    """The table that ``columns`` make of the numbers, or of ``rows``, the same numbers arranged as they are read."""
    return ShownTable(name, heading, numbers, shown(numbers if rows is None else rows, columns), notes(columns))


def shown(numbers: pd.DataFrame, columns: Iterable[Column]) -> pd.DataFrame:
    """The cells of a table, text only."""
    rows = numbers.to_dict("records")
    return pd.DataFrame({column.heading: [column.cell(row) for row in rows] for column in columns}, dtype="str")


def notes(columns: Iterable[Column]) -> list[str]:
    """The sentences below a table of these columns, in their order."""
    return [sentence for column in columns for sentence in column.notes]


def is_words(column: pd.Series) -> bool:
    """Whether a column of text is read as words (set flush left) rather than as numbers."""
    return column.map(lambda cell: cell[:1].isalpha() or cell[:1] == "(").any()


def markdown(cells: pd.DataFrame, notes: Iterable[str] = ()) -> str:
    """A pipe table of text cells, and below it the notes, which are to go where the table goes."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(wording.escape_markdown(text) for text in texts) + " |"

    rule = "|" + "|".join(":--" if is_words(cells[name]) else "--:" for name in cells) + "|"
    rows = [line(row) for row in cells.itertuples(index=False)]
    return "\n".join([line(cells), rule, *rows, *(f"\n{wording.escape_markdown(note)}" for note in notes)]) + "\n"


def latex(cells: pd.DataFrame, notes: Iterable[str] = ()) -> str:
    """A ``tabular`` for a document that loads booktabs; above it, as comments, how to fit it in and the notes."""
    styler = cells.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    alignment = "".join("l" if is_words(cells[name]) else "r" for name in cells)
    text = styler.to_latex(column_format=alignment, hrules=True)
    for sign, command in LATEX.items():
        text = text.replace(sign, command)
    # In one line each: a comment ends with it.
    comments = [f"% {' '.join(wording.printable(note).split())}\n" for note in (LATEX_USE, *notes)]
    return "".join(comments) + text
