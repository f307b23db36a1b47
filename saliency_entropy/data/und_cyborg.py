"""The data set of the paper, read from the CSVs that its owners (University of Notre Dame) distribute with it.

``csvs/original.csv`` lists the training set and, under the word "test", the validation set; each file of
``csvs/gan_test_sets`` lists the test images of one source. None has a header; all have the columns
``split,Class,path``, with paths that begin with "/" but are relative to the data root.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from saliency_entropy.data.human_maps.join import with_human_maps
from saliency_entropy.data.listed_files import check_root
from saliency_entropy.data.table import LABELS, Manifest, complete, name_problems, refuse, word_problems
from saliency_entropy.data.table_file import read_fields
from saliency_entropy.errors import UserError

# The paper, section 5: both generators made images for the training and the validation set, and the real images of both
# are photographs of FRGC. An image whose path names no generator is by one of the two: neither is "unseen".
TRAINING_GENERATORS = ("srefi", "stylegan2")
TRAINING_SOURCE = "frgc"
# The meaning of the words in the CSVs.
SPLITS_OF_ORIGINAL = {"train": "train", "test": "val"}
SPLITS_OF_TESTS = {"test": "test"}
CLASSES = {label.capitalize(): label for label in LABELS}


def und_cyborg(root: str | Path, maps: str | Sequence[str] | None = None) -> Manifest:
    """The manifest of the UND CYBORG data set.

    ``generator`` of a synthetic test image is the name of its CSV, as is ``source`` of a real one. A synthetic training
    or validation image has the generator that its path names, or ``srefi+stylegan2`` where it names none.

    Args:
        root: the folder that holds ``csvs`` and the images.
        maps: folders of human maps of the training images:
            :func:`~saliency_entropy.data.human_maps.join.join_by_base_name`. No maps, if not given.

    Returns:
        The manifest, checked like any other.

    Raises:
        UserError: a file or folder is not where it should be, or cannot be read; rows are wrong: all of them, in all
            files, are named; or the maps cannot be joined.
    """
    root = Path(root)
    check_root(root)
    original, tests = root / "csvs" / "original.csv", root / "csvs" / "gan_test_sets"
    if not original.is_file() or not any(tests.glob("*.csv")):
        missing = f"{tests}/*.csv" if original.is_file() else original
        raise UserError(
            f"{missing} does not exist; data.root must be the folder of the UND CYBORG data set that holds "
            "csvs/original.csv and csvs/gan_test_sets/*.csv"
        )
    files = [original, *sorted(tests.glob("*.csv"))]
    tables, problems = [], []
    for file in files:
        try:
            tables.append(_read(file))
        except UserError as error:
            problems.append(str(error))
    refuse(problems)
    parts = tuple((str(file.relative_to(root)), len(table)) for file, table in zip(files, tables, strict=True))
    translated = []
    for file, part, table in zip(files, parts, tables, strict=True):
        splits = SPLITS_OF_ORIGINAL if file == original else SPLITS_OF_TESTS
        manifest = Manifest(table, root, str(file), (part,))
        for column, words in (("split", splits), ("label", CLASSES)):
            problems += word_problems(manifest, column, list(words), "correct it, or copy the file again")
        test_set = None if file == original else file.stem
        translated.append(_translated(table, splits, test_set))
    manifest = Manifest(pd.concat(translated, ignore_index=True), root, str(root / "csvs"), parts)
    if problems:
        raise UserError("\n".join(problems + name_problems(manifest)))
    return with_human_maps(complete(manifest), maps, split="train")


def _read(file: Path) -> pd.DataFrame:
    """The columns split, label and path of one CSV, in its own words."""
    table = read_fields(file)
    if table.shape[1] != 3:
        raise UserError(f"{file} has {table.shape[1]} columns, not split,Class,path; copy it again")
    table = table.set_axis(["split", "label", "path"], axis=1)
    return table.assign(split=table["split"].str.strip(), label=table["label"].str.strip())


def _translated(table: pd.DataFrame, splits: dict[str, str], test_set: str | None) -> pd.DataFrame:
    """The rows of one CSV in the manifest's words; "" for an unknown word."""
    path, label = table["path"].str.lstrip("/"), table["label"].map(CLASSES).fillna("")
    generator, source = test_set or path.map(_training_generator), test_set or TRAINING_SOURCE
    real = label == "real"
    return pd.DataFrame(
        {
            "path": path,
            "label": label,
            "split": table["split"].map(splits).fillna(""),
            "generator": np.where(real, "", generator),
            "source": np.where(real, source, ""),
        }
    )


def _training_generator(path: str) -> str:
    named = [generator for generator in TRAINING_GENERATORS if generator in path.lower()]
    return named[0] if len(named) == 1 else "+".join(TRAINING_GENERATORS)
