"""Users' CSV and Parquet files: the text of a CSV is not interpreted."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from saliency_entropy.errors import UserError, in_one_line, listing

SEPARATORS = ",;\t"
MOST_ROWS = 20_000_000  # of a Parquet file: more images than anyone trains on, and some GB of names


def read_fields(path: Path) -> pd.DataFrame:
    """All fields of a CSV file as text, the first row like the others; blank lines at the end are left out.

    The separator is a comma, a semicolon (written by spreadsheets where the comma is the decimal sign) or a tab:
    whichever comes first in the first row. Fields that hold it are in double quotes. A line ``sep=;`` before the first
    row, which Excel writes and does not show, names the separator.

    Raises:
        UserError: the file is empty, its first row is blank, it is not UTF-8, or rows have more fields than the first.
    """
    with _reading(path):
        separator, hidden = _separator(path)
        # header=None: with a header, pandas takes the first fields of longer rows for an index, and renames a column
        # that occurs twice. Blank lines are kept, for the row numbers.
        fields = pd.read_csv(
            path,
            sep=separator,
            skiprows=hidden,
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        )
    fields = fields.fillna("")  # fields that a short row lacks
    filled = (fields != "").any(axis=1).to_numpy().nonzero()[0]
    return fields.iloc[: filled[-1] + 1 if len(filled) else 0]


def read_parquet(path: Path) -> pd.DataFrame:
    """Raises UserError if the file cannot be read, or has too many rows."""
    with _reading(path):
        with pq.ParquetFile(path) as file:
            refuse_many_rows(path, file)
        return pd.read_parquet(path)


def refuse_many_rows(path: Path, file: pq.ParquetFile) -> None:
    """Raises UserError if the table would not fit into memory: a few MB may hold the same row 300 million times."""
    groups = file.metadata
    rows = max(groups.num_rows, sum(groups.row_group(number).num_rows for number in range(groups.num_row_groups)))
    if rows > MOST_ROWS:
        raise UserError(f"{path} has {rows:,} rows, more than {MOST_ROWS:,}; keep only those of your images")


def _separator(path: Path) -> tuple[str, int]:
    """The separator, and how many lines there are before the first row: 1 or 0."""
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline()
    if stated := re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE):
        return stated[1], 1
    if first.isspace():
        raise UserError(f"{path} begins with a blank row; remove it")
    outside_quotes = re.sub(r'"[^"]*"', "", first)
    return next((sign for sign in outside_quotes if sign in SEPARATORS), ","), 0


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:  # a ValueError, too
        raise
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; copy it again") from None
    except PermissionError:
        raise UserError(f"{path} may not be read (permission denied); give yourself read access") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: {_undecodable(path)}; save it as CSV UTF-8") from None
    except pd.errors.ParserError as error:
        why = _longer_rows(path) or f"{in_one_line(error, None)}; save it as CSV again"
        raise UserError(f"{path} cannot be read as a table: {why}") from None
    except (ValueError, OSError) as error:  # the errors of pandas and pyarrow are ValueErrors
        why = in_one_line(error, None)
        raise UserError(f"{path} cannot be read as a table ({why}); save it as CSV or Parquet again") from None


def _undecodable(path: Path) -> str:
    """The lines that are not UTF-8, with the wrong bytes written as ``\\xff``."""
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                found.append(f"row {number} has {repr(line.strip()[:80])[1:]}")
    return listing(found)


def _longer_rows(path: Path) -> str:
    """The rows with more fields than the first; "" if no row has more."""
    separator, hidden = _separator(path)
    # The parser gave up before the end of the file; further on there may be bytes that are not UTF-8.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            counts = [len(row) for row in csv.reader(file, delimiter=separator)][hidden:]
        except csv.Error:
            return ""
    longer = [(row, count) for row, count in enumerate(counts, start=1) if count > counts[0]]
    if not longer:
        return ""
    found = listing(f"row {row} has {count} fields" for row, count in longer)
    return f"{found}, but the first row has {counts[0]}; put cells that hold {separator!r} in double quotes"
