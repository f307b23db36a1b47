"""The data set of the paper, read from the CSVs that its owners (University of Notre Dame) hand out with it.

``csvs/original.csv`` lists the training set and, under the word "test", the validation set; each file of
``csvs/gan_test_sets`` lists the test images of one source. None has a header; all have the columns
``split,Class,path``, with paths that begin with "/" but are relative to the data root.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from saliency_entropy.data.manifest import LABELS, Manifest, check_root, complete, listing, read_fields, refuse_rows
from saliency_entropy.errors import UserError

# The paper, section 5: both generators made images of the training and of the validation set, and FRGC's photographs
# are the real ones of both. Where a path does not say which generator, it is one of these: neither is "unseen".
TRAINING_GENERATORS = ("srefi", "stylegan2")
TRAINING_SOURCE = "frgc"


def und_cyborg(root: str | Path, maps: str | None = None) -> Manifest:
    """The manifest of the UND CYBORG data set.

    ``generator`` of a synthetic test image is the name of its CSV, as is ``source`` of a real one. A synthetic training
    or validation image has the generator that its path names, or ``srefi+stylegan2`` where it names none.

    Args:
        root: the folder that holds ``csvs`` and the images.
        maps: the folder of the human maps of the training images, relative to ``root``. Each is found by the base name
            of its image; a training image may have none. Not given: no maps.

    Returns:
        The manifest, checked like any other.

    Raises:
        UserError: a file or folder is not where it should be; a row has an unknown split or class; a base name is
            not unique where a map is found by it; no map belongs to any training image.
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
    tables = []
    for file in files:
        table = _read(file, root, {"train": "train", "test": "val"} if file == original else {"test": "test"})
        generator = table["path"].map(_training_generator) if file == original else file.stem
        source = TRAINING_SOURCE if file == original else file.stem
        real = table["label"] == "real"
        tables.append(table.assign(generator=np.where(real, "", generator), source=np.where(real, source, "")))
    parts = tuple((str(file.relative_to(root)), len(table)) for file, table in zip(files, tables, strict=True))
    manifest = complete(Manifest(pd.concat(tables, ignore_index=True), root, str(root / "csvs"), parts))
    return manifest if maps is None else _with_maps(manifest, maps)


def _read(file: Path, root: Path, splits: dict[str, str]) -> pd.DataFrame:
    """The columns path, label and split of one CSV, in the manifest's words."""
    name = str(file.relative_to(root))
    table = read_fields(file)
    if table.shape[1] != 3:
        raise UserError(f"{file} has {table.shape[1]} columns, not split,Class,path; copy it again")
    table = table.set_axis(["split", "label", "path"], axis=1)
    manifest = Manifest(table, root, str(file), ((name, len(table)),))
    classes = {label.capitalize(): label for label in LABELS}
    for column, words in (("split", splits), ("label", classes)):
        wrong = ~table[column].isin(list(words))
        refuse_rows(manifest, column, wrong, f"must be {' or '.join(words)}", "correct it, or copy the file again")
    return table.assign(
        split=table["split"].map(splits), label=table["label"].map(classes), path=table["path"].str.lstrip("/")
    )


def _training_generator(path: str) -> str:
    named = [generator for generator in TRAINING_GENERATORS if generator in path.lower()]
    return named[0] if len(named) == 1 else "+".join(TRAINING_GENERATORS)


def _with_maps(manifest: Manifest, maps: str) -> Manifest:
    maps = maps.strip("/")
    folder = manifest.root / maps
    if not folder.is_dir():
        raise UserError(
            f"data.source.maps={maps} is no folder in {manifest.root}; name the folder of the human maps, or null"
        )
    train = manifest.split("train")
    files = pd.Series(sorted(file.name for file in folder.iterdir() if file.is_file()), dtype="str")
    stems = train["path"].map(lambda path: Path(path).stem)
    wanted = files[files.map(lambda name: Path(name).stem).isin(stems)]
    if wanted.empty:
        raise UserError(f"no file in {folder} has the base name of a training image (such as {stems.iloc[0]!r})")
    of_file = wanted.map(lambda name: Path(name).stem)
    # The map of one image must never train another: a base name that two share says nothing.
    for names, stem, what in ((wanted, of_file, "maps"), (train["path"], stems, "training images")):
        shared = names[stem.duplicated(keep=False).to_numpy() & stem.isin(of_file).to_numpy()]
        if len(shared):
            found = listing(f"{name!r}" for name in shared)
            raise UserError(f"{folder}: {what} share a base name, so a map's image is unclear: {found}; rename one")
    found = dict(zip(of_file, wanted, strict=True))
    table = manifest.table.copy()
    table.loc[train.index, "human_map"] = [f"{maps}/{found[stem]}" if stem in found else "" for stem in stems]
    return complete(replace(manifest, table=table))
