"""How figures and names are written, in tables and in sentences."""

import csv
import re

import numpy as np
import pandas as pd

NONE = "–"
# At a cell's beginning, or where a reader may begin another; quotation marks vanish in reading.
FORMULA_START = re.compile(r"""^(?=[\t\r])|(?:^|(?<=[;\t\r\n]))(?=[\s"]*[=+\-@])""")


def number(value: float, digits: int = 3, sign: str = "") -> str:
    """``−0.123``; with ``sign="+"`` also ``+0.123``; a dash for NaN."""
    return NONE if np.isnan(value) else f"{value:{sign}.{digits}f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 3, sign: str = "") -> str:
    """``0.612 to 0.671``; a dash for NaN. An end that is not 0 is not written as 0, so that an interval that excludes
    it is seen to: ``−0.228 to −0.0003``."""
    if np.isnan(low):
        return NONE
    enough = [next((more for more in range(digits, 7) if not end or round(end, more)), digits) for end in (low, high)]
    return f"{number(low, enough[0], sign)} to {number(high, enough[1], sign)}"


def spread(mean: float, std: float, digits: int = 3) -> str:
    """``0.612 ± 0.031``; the mean alone where the standard deviation is NaN, as of one seed."""
    return number(mean, digits) + ("" if np.isnan(std) or np.isnan(mean) else f" ± {number(std, digits)}")


def p_value(p: float) -> str:
    """``0.012`` or ``< 0.001``; a dash for NaN."""
    return "< 0.001" if p < 0.001 else number(p)


def p_equals(p: float) -> str:
    """``p = 0.012`` or ``p < 0.001``."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def count(number: int, thing: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def first_few(words: list[str], most: int = 3, separator: str = ", ") -> str:
    """``a, b, c and 2 more``: all names of a hundred runs would be a paragraph."""
    return separator.join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def tied(text: str) -> str:
    """Text whose line breaks part no figure from its sign or unit, by no-break spaces: ``p < 0.001``, ``95 %``."""
    return re.sub(r" (?=[<=≥±] ?\d|%)|(?<=[<=≥±]) (?=\d)", "\u00a0", text)


def escape_markdown(text: str) -> str:
    """Text in which neither Markdown nor the HTML in it finds markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))


def neutralised(table: pd.DataFrame) -> pd.DataFrame:
    """A copy whose text no spreadsheet takes for a formula: cells that begin with ``= + - @``, a tab or a carriage
    return get a ``'`` before it. So does what follows a semicolon, a tab or a line break in a cell: spreadsheets in
    much of Europe begin a cell there, even between quotation marks. Numbers stay numbers."""
    return table.apply(lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(_as_text))


def csv_text(table: pd.DataFrame) -> str:
    """A CSV for people: all text, the names of the columns too, is quoted and :func:`neutralised`."""
    named = neutralised(table).set_axis([_as_text(name) for name in table.columns], axis=1)
    return named.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def printable(text: str) -> str:
    """``?`` for control characters: a name from somebody's files must not move a terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _as_text(cell: object) -> object:
    return FORMULA_START.sub("'", cell) if isinstance(cell, str) else cell
