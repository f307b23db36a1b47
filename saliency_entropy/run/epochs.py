"""``metrics.csv``, the table of a run's epochs: its rows decide which epoch is scored."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd


def epochs_text(rows: Sequence[Mapping[str, float]]) -> str:
    """The content of the file."""
    return pd.DataFrame(rows).to_csv(index=False)


def read_epochs(folder: Path) -> pd.DataFrame:
    """A row for each epoch of a run, from 0 on.

    Returns:
        ``epoch`` in whole numbers; all other columns are floats, NaN where a figure was not a number.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not as runs write it; names the row.
    """
    text = (folder / "metrics.csv").read_text()
    rows = text.split("\n")
    if rows.pop() or not rows:
        raise ValueError(f"row {len(rows) + 1} has no end")
    for number, row in enumerate(rows, 1):
        if "\0" in row or row.count(",") != rows[0].count(","):
            raise ValueError(f"row {number} is damaged")
    table = pd.read_csv(io.StringIO(text), dtype=float)
    if "epoch" not in table or table["epoch"].tolist() != list(range(len(table))):
        raise ValueError("its column epoch is not 0, 1, 2 and so on")
    return table.astype({"epoch": int})
