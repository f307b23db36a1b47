"""A data set that is listed in a CSV or Parquet file."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from saliency_entropy.data.human_maps.join import with_human_maps
from saliency_entropy.data.listed_files import check_root
from saliency_entropy.data.table import REQUIRED, Manifest, complete
from saliency_entropy.data.table_file import read_fields, read_parquet
from saliency_entropy.errors import UserError, named


def read_manifest(
    path: str | Path, root: str | Path | None = None, maps: str | Sequence[str] | None = None
) -> Manifest:
    """Read and check a manifest, a CSV (UTF-8) or Parquet file with a header.

    Args:
        path: the file; Parquet if it ends in ``.parquet``. A CSV may be separated by commas, semicolons or tabs. Where
            there is no ``x.csv``, ``x.parquet`` is read.
        root: the folder that the paths in it are relative to; the manifest's own, if not given.
        maps: folders of human maps, for a manifest without any:
            :func:`~saliency_entropy.data.human_maps.join.join_by_base_name`.

    Returns:
        The manifest; folders in column ``human_map`` are replaced by the files in them. Values are not interpreted:
        ``=cmd()`` or ``NA`` are text like any other, but for generators and sources that are not known; see
        :func:`~saliency_entropy.data.group_names.with_clean_names`.

    Raises:
        UserError: the file cannot be read, a column is missing, or rows are wrong: all of them are named.
    """

    path = Path(path)
    root = path.parent if root is None else Path(root)
    check_root(root)
    if path.suffix == ".csv" and not path.is_file() and path.with_suffix(".parquet").is_file():
        path = path.with_suffix(".parquet")
    if not path.is_file():
        raise UserError(
            f"{named(path)} does not exist; a data set needs a manifest there (.csv or .parquet), with the columns "
            f"{', '.join(REQUIRED)}; images in folders split/label are data=folder"
        )
    table = read_parquet(path) if path.suffix == ".parquet" else _named_columns(read_fields(path), path)
    return with_human_maps(complete(Manifest(table.reset_index(drop=True), root, str(path))), maps)


def _named_columns(fields: pd.DataFrame, path: Path) -> pd.DataFrame:
    names = [name.strip() for name in fields.iloc[0]] if len(fields) else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path} has two columns named {' and '.join(map(repr, twice))}; rename one")
    return fields.iloc[1:].set_axis(names, axis=1) if names else fields
