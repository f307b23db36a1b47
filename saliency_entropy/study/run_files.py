"""The files that a run leaves, each read through one schema: what does not fit it is said in a sentence."""

import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from yaml import YAMLError

from saliency_entropy.data.table import LABELS
from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.metrics import SCORES
from saliency_entropy.run.epochs import read_epochs
from saliency_entropy.run.folder import read_config
from saliency_entropy.run.result import IMAGES

SCORE_COLUMNS = ("label", "generator", "logit_real", "logit_synthetic", "cam_entropy")
OPTIONAL_SCORE_COLUMNS = ("source", "compare_with")
VAL_SCORE_COLUMNS = ("label", "logit_real", "logit_synthetic")
TEXT_COLUMNS = ("path", "label", "generator", *OPTIONAL_SCORE_COLUMNS)
ENTROPIES = ["train/cam_entropy", "val/cam_entropy"]

Name = Annotated[str, Field(min_length=1, max_length=1000)]  # control characters are for the outputs to escape
Count = Annotated[int, Field(ge=0, le=10**9)]
Amount = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]  # nats, or seconds


class _Strict(BaseModel):
    # JSON's true is an int to Python, and "5" one to Pydantic; neither is one here.
    model_config = ConfigDict(strict=True)


class _TestFigures(_Strict):
    auroc: float | None  # NaN without images of both labels; else a report compares it with the scores


class _Result(_Strict):
    """The keys of ``result.json`` that a report uses; those with a default are missing from earlier versions' files."""

    method: Name
    title: Name
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    train_generators: list[str]
    cam_cells: Annotated[int, Field(ge=1, le=10**6)]
    test: _TestFigures
    git_commit: str | None
    versions: dict[str, str]
    human_entropy: Amount | None = None
    wall_seconds: Amount | None = None
    epochs: Count | None = None
    best_epoch: Count | None = None
    relatives: list[str] = []
    finished: str = ""
    data_hash: str = ""
    images_hash: str = ""
    checkpoint: str = ""
    left_out: dict[str, dict[str, Count]] = {}
    unread: dict[str, Count] = {}


class _Config(_Strict):
    """The keys of ``config.yaml`` without which nobody knows what the run was."""

    method: dict[str, Any]
    seed: int
    data: dict[str, Any]
    trainer: dict[str, Any]


def check_result(folder: Path, result: dict[str, Any]) -> None:
    """Raises UserError if a run's ``result.json`` does not hold what a report needs."""
    with reading(folder / "result.json", "delete it and train again, which then only scores the run"):
        _check(_Result, result)


def checked_config(folder: Path) -> dict[str, Any]:
    """A run's ``config.yaml``; raises UserError if it cannot be read."""
    with reading(folder / "config.yaml", f"delete {folder} and train the run again"):
        config = read_config(folder)
        _check(_Config, config)
        return config


def checked_epochs(folder: Path, epochs: int | None) -> pd.DataFrame:
    """A run's ``metrics.csv``; raises UserError if it cannot be read or has other than ``epochs`` rows."""
    with reading(folder / "metrics.csv", f"delete {folder} and train the run again"):
        table = read_epochs(folder)
        _require(ENTROPIES, table.columns, "column")
        if epochs is not None and len(table) != epochs:
            raise ValueError(f"it has {len(table)} epochs, and result.json says {epochs}")
        if ((table[ENTROPIES] < 0) | np.isinf(table[ENTROPIES])).any(axis=None):
            raise ValueError("it has a CAM entropy that is none")
        return table


def read_scores(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """``columns`` of a score table, and the ``optional`` ones that it has and that hold a value a cell.

    Raises:
        OSError, ValueError: the file cannot be read, or does not fit its schema.
    """
    schema = pq.read_schema(path)
    _require(columns, schema.names, "column")
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    further = [name for name in dict.fromkeys(optional) if name in flat and name not in columns]
    for name in (*columns, *further):
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        if (name in SCORES and not pa.types.is_floating(kind)) or (name in TEXT_COLUMNS and not text):
            raise ValueError(f"its column {name} is of {kind}")
    table = pd.read_parquet(path, columns=[*columns, *further])
    if table.empty:
        raise ValueError("it holds no image")
    # An image with another label would count as real.
    labels = {*table["label"].unique()} - {*LABELS} if "label" in table else {}
    if labels:
        raise ValueError(f"it has a label that is neither {' nor '.join(LABELS)}: {sorted(map(str, labels))[0]}")
    return table.fillna({"generator": ""})


def images_of(path: Path) -> str:
    """The digest of the images that a score table is of; "" if it does not say, as those of earlier versions."""
    return (pq.read_schema(path).metadata or {}).get(IMAGES, b"").decode()


def usual(digests: Iterable[str]) -> tuple[str, str]:
    """The digests that may be compared: the most frequent of those that are known, and "" for one that is not."""
    return (Counter(filter(None, digests)).most_common(1) or [("", 0)])[0][0], ""


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Turn what the readers of a file raise into one sentence, a :class:`UserError`."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, though the run is finished; {remedy}") from None
    # pandas and pyarrow raise ValueErrors and OSErrors.
    except (ValueError, OSError, YAMLError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({in_one_line(error, None)}); {remedy}") from None


def _check(schema: type[BaseModel], values: dict[str, Any]) -> None:
    """Raises ValueError if values do not fit."""
    try:
        schema.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        missing = [".".join(map(str, problem["loc"])) for problem in problems if problem["type"] == "missing"]
        if missing:
            raise ValueError(f"it has no key {' and '.join(missing)}") from None
        place = ".".join(map(str, problems[0]["loc"]))
        raise ValueError(f"its {place[:100]} is {reprlib.repr(problems[0]['input'])}") from None


def _require(names: Sequence[str], present: Any, kind: str) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise ValueError(f"it has no {kind} {' and '.join(missing)}")
