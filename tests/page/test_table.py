"""Tables as readers see them: cells, notes, Markdown and LaTeX."""

import numpy as np
import pandas as pd

from saliency_entropy.page.table import Column, ShownTable, latex, markdown, notes, shown

SHOWN = pd.DataFrame(
    {
        "Method": ["a|b & <c>_1 `x`", "[50 %] \\of $ #1 {~^}", "=2+3"],
        "p (Holm)": ["< 0.001", "–", "0.500"],
        "AUROC / %": ["0.5 ± 0.1", "−0.2", "1"],
    }
)


def test_markdown():
    lines = markdown(SHOWN).splitlines()
    assert lines[0] == "| Method | p (Holm) | AUROC / % |"
    assert lines[1] == "|:--|--:|--:|"
    assert lines[2] == r"| a\|b \& \<c\>\_1 \`x\` | \< 0.001 | 0.5 ± 0.1 |"
    assert len(lines) == 5


def test_the_notes_go_with_a_table():
    notes = ["± is the standard deviation.", "“–” for a\n\u2028b_c: 1 %."]
    assert markdown(SHOWN, notes) == (markdown(SHOWN) + "\n± is the standard deviation.\n\n“–” for a b\\_c: 1 %.\n")
    use, *comments = latex(SHOWN, notes).split("\\begin")[0].splitlines()
    assert use.startswith("% Needs booktabs.")
    assert comments == ["% ± is the standard deviation.", "% “–” for a??b_c: 1 %."]


def test_latex():
    text = latex(SHOWN)
    assert text.splitlines()[1:5] == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"Method & p (Holm) & AUROC / \% \\",
        r"\midrule",
    ]
    assert r"a$|$b \& $<$c$>$\_1 `x` & $<$ 0.001 & 0.5 $\pm$ 0.1 \\" in text
    # An opening bracket at the start of a row would be the argument of the line break before it.
    assert r"{[}50 \%] \textbackslash of \$ \#1 \{\textasciitilde \textasciicircum \} & -- & $-$0.2 \\" in text
    assert text.splitlines()[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_the_forms_of_a_column():
    numbers = pd.DataFrame(
        {"title": ["a", "b"], "x_mean": [-0.5, np.nan], "x_std": [np.nan, 0.1], "p": [1e-4, np.nan]}
        | {"difference": [0.25, -0.25], "low": [0.1, np.nan], "high": [0.4, np.nan], "seeds": [1, 2]}
    )
    columns = [
        Column("Method", "title"),
        Column("Seeds", lambda row: f"{row['seeds']} of 2", notes=["One note."]),
        Column("X", "x", "spread", 1),
        Column("Difference", "difference", "number", sign="+"),
        Column("95 %", "", "interval", 2),
        Column("p", "p", "p", notes=["Two", "more."]),
    ]
    assert shown(numbers, columns).to_dict("list") == {
        "Method": ["a", "b"],
        "Seeds": ["1 of 2", "2 of 2"],
        "X": ["−0.5", "–"],
        "Difference": ["+0.250", "−0.250"],
        "95 %": ["0.10 to 0.40", "–"],
        "p": ["< 0.001", "–"],
    }
    assert notes(columns) == ["One note.", "Two", "more."]
    assert shown(numbers[:0], columns).empty


def test_the_columns_of_words_are_looked_for_once(monkeypatch):
    """A page asks at every cell: a look at every cell each time took minutes for a table of 3,000 rows."""
    seen = []
    monkeypatch.setattr("saliency_entropy.page.table.is_words", lambda column: seen.append(column.name) or True)
    table = ShownTable("a", "A", pd.DataFrame(), pd.DataFrame({"x": ["1"], "y": ["b"]}), [])
    assert [table.word_columns for _ in range(3)] == [[True, True]] * 3
    assert seen == ["x", "y"]
