"""How figures and names are written."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from saliency_entropy.page import wording


def test_no_line_break_parts_a_figure_from_its_sign_or_unit():
    sentence = "+0.1 (95 % interval −0.1 to +0.3; p < 0.001, p = 0.010): 0.5 ± 0.1 of < 3, p (Holm) ≥ 0.05."
    tied = "+0.1 (95_% interval −0.1 to +0.3; p_<_0.001, p_=_0.010): 0.5_±_0.1 of_<_3, p (Holm)_≥_0.05."
    assert wording.tied(sentence) == tied.replace("_", "\u00a0")


def test_text_that_a_spreadsheet_would_run_is_neutralised():
    table = pd.DataFrame(
        {
            "text": ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "a=b", ""],
            "number": [-1.5, 2, 3, 4, 5, 6, 7, np.nan],
            "count": range(-1, 7),
            "mixed": [-1, "-1", None, "x", 1.5, "=x", "'", True],
        }
    )
    before = table.copy()
    found = wording.neutralised(table)
    assert list(found["text"]) == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "a=b", ""]
    pd.testing.assert_frame_equal(found[["number", "count"]], table[["number", "count"]])
    assert list(found["mixed"].drop(2)) == [-1, "'-1", "x", 1.5, "'=x", "'", True]
    assert found.to_csv(index=False).splitlines()[1] == "'=1+1,-1.5,-1,-1"
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_no_reader_finds_a_formula_in_a_csv(separator):
    """Whatever it takes for the end of a cell."""
    formulas = ("=cmd()", "+1", "-1", "@x", "\t=1", "\r=1")
    cells = [f"{before}{formula}{after}" for formula in formulas for before, after in (
        ("", ""), ("x;", ";y"), ("x; ", ""), ('x;"', '"'), ("x\n", ""), (" ", ""), ("\n", ""), ("x\t", ""), (";", ","),
    )]  # fmt: skip
    table = pd.DataFrame({"x;=name()": cells, "number": np.arange(len(cells)) - 5.5, "other": cells[::-1]})
    text = wording.csv_text(table)
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
        for cell in row:
            begun = cell.strip('" ')
            assert not begun.startswith(("=", "+", "@")), (cell, row)
            # A comma's reader alone sees the numbers for themselves.
            assert not begun.startswith("-") or (separator == "," and float(begun) < 0), (cell, row)
    again = pd.read_csv(io.StringIO(text))
    assert again["number"].tolist() == table["number"].tolist()
    assert again.columns[0] == "x;'=name()"


def test_an_empty_table_can_be_neutralised():
    assert wording.neutralised(pd.DataFrame({"path": []})).columns.tolist() == ["path"]
    assert wording.neutralised(pd.DataFrame()).empty


def test_an_end_that_is_not_zero_is_not_written_as_zero():
    assert wording.interval(-0.228, -0.0003, sign="+") == "−0.228 to −0.0003"
    assert wording.interval(0.00004, 0.5) == "0.00004 to 0.500"
    assert wording.interval(0.0, 0.5) == "0.000 to 0.500"
    assert wording.interval(-1e-9, 0.5) == "−0.000 to 0.500"
    assert wording.interval(float("nan"), float("nan")) == "–"
