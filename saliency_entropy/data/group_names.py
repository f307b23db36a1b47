"""The names by which images are grouped: their generator, their source and the values of further columns."""

import difflib
import re
import unicodedata
from collections import defaultdict
from itertools import product

import pandas as pd

from saliency_entropy.errors import listing

# Images are not grouped by a further column of more different values, such as a person's number.
MAX_GROUPS = 20
ALIKE = 0.85  # difflib's ratio of two words, from which on one may be a misspelling: stlyegan 0.88, cyclegan 0.75


def with_clean_names(table: pd.DataFrame) -> pd.DataFrame:
    """The table, its text columns but for the names of files without blanks around their values and, in ``generator``
    and ``compare_with``, around ``+``; where ``generator``, ``source`` or ``compare_with`` says that nothing is known
    (``nan``, ``none``, ``null``, ``unknown``, ``?``), the cell becomes "". In a further column, "none" is a value."""
    from saliency_entropy.metrics import NOT_KNOWN  # here, since it loads PyTorch: see table_problems

    cleaned = {}
    for column in table.select_dtypes("str").columns.difference(["path", "human_map"]):
        names = table[column].str.strip()
        if column in ("generator", "compare_with"):
            names = names.str.replace(r"\s*\+\s*", "+", regex=True)
        if column in ("generator", "source", "compare_with"):
            names = names.mask(names.str.lower().isin(NOT_KNOWN), "")
        cleaned[column] = names
    return table.assign(**cleaned)


def spelling_problems(table: pd.DataFrame, origin: str) -> list[str]:
    """A sentence for each column that spells a name in several ways, which would count as several groups: an image of
    a generator in training would be taken for one of an unseen generator."""
    compared = [column for column in ("source", "compare_with") if column in table]
    further = table.select_dtypes("str").columns.difference(
        ["path", "label", "split", "human_map", "generator", *compared], sort=False
    )
    # A further column groups the test images, if it has few values.
    tests = table[table["split"] == "test"] if "split" in table else table
    groups = [
        (column, set(tests[column].dropna()), _in_one_case)
        for column in further
        if tests[column].nunique() <= MAX_GROUPS
    ]
    if "generator" in table:
        groups.insert(0, ("generator", _parts(table["generator"]), _without_separators))
    sources = set().union(*(_parts(table[column]) for column in compared))
    groups.append((" and ".join(compared), sources, _without_separators))
    problems = []
    for columns, names, key_of in groups:
        spellings: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            spellings[key_of(name)].append(repr(name))
        alike = [" and ".join(found) for key, found in spellings.items() if key and len(found) > 1]
        if alike:
            problems.append(
                f"{origin}: column {columns} holds names that differ only in case, blanks, '-', '_' or '.', so that "
                f"they would count as different: {listing(alike)}; write each name in one way (names of different "
                "things must differ in more)"
            )
    return problems


def near_misses(table: pd.DataFrame) -> list[str]:
    """A clause for each generator of the test split alone that is probably the misspelt name of one of the training
    images, which the report would count as unseen: ``stlyegan2`` beside ``stylegan2``.

    One word of five letters or more differs, a little; a word that goes on where the other ends, as well as other
    numbers, make another generator (``stylegan2-ada``, ``stylegan3``)."""
    synthetic = table[table["label"] == "synthetic"]
    trained, tested = (_parts(synthetic["generator"][synthetic["split"] == split]) for split in ("train", "test"))
    clauses = []
    for name, other in product(sorted(tested - trained), sorted(trained)):
        words, others = (re.findall(r"[^\W\d_]+", spelled.casefold()) for spelled in (name, other))
        differing = [pair for pair in zip(words, others, strict=False) if len(set(pair)) == 2]
        if len(words) == len(others) and len(differing) == 1:
            short, long = sorted(differing[0], key=len)
            alike = difflib.SequenceMatcher(None, short, long).ratio() >= ALIKE
            if alike and len(short) >= 5 and not long.startswith(short):
                clauses.append(f"test generator {name!r} looks like a misspelling of training generator {other!r}")
    return clauses


def _parts(cells: pd.Series) -> set[str]:
    """The names in a column that may hold ``a+b``."""
    return {part for cell in cells.dropna().astype("str").unique() for part in cell.split("+") if part}


def _in_one_case(name: str) -> str:
    """What two spellings of a value share: letters of one case and one Unicode form, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _without_separators(name: str) -> str:
    """What two spellings of a generator share. Between two digits a separator counts: ``v1.0`` is not ``v10``."""
    numbers_kept = re.sub(r"(?<=\d)[\s_.-]+(?=\d)", "/", _in_one_case(name))
    return re.sub(r"[\s_.-]", "", numbers_kept)
