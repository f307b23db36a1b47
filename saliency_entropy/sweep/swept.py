"""What the last sweep into a study was to train, by the ``multirun.yaml`` that it left there."""

from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException

from saliency_entropy.sweep.progress import is_grid, parsed_overrides

MOST_VALUES = 10_000  # of methods or seeds; a file that names more was written by no sweep

# Ten times as fast as the loader in Python, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def plain_yaml(path: Path) -> Any:
    """The content of a file that Hydra wrote, such as a configuration: plain values.

    Raises:
        OSError, ValueError, yaml.YAMLError: it cannot be read.
    """
    return yaml.load(path.read_text(), _Loader)


def swept_runs(study: Path) -> set[tuple[str, int]]:
    """(method, seed) of the runs that the last sweep into this study was to train; none if it is not known."""
    try:
        sweep = plain_yaml(study / "multirun.yaml")
        if not is_grid(sweep["hydra"]["sweeper"]):
            return set()  # another decides as it goes
        params = sweep["hydra"]["sweeper"]["params"] or {}
        given = [*(f"{key}={value}" for key, value in params.items()), *sweep["hydra"]["overrides"]["task"]]
        overrides = {one.get_key_element().lstrip("+"): one for one in parsed_overrides(given)}
        if any(key in overrides and overrides[key].is_sweep_override() for key in ("study", "runs_dir")):
            return set()  # its runs are in other folders
        methods = _values(overrides.get("method")) or [sweep["method"]["name"]]
        seeds = _values(overrides.get("seed")) or [sweep["seed"]]
        return {(method, int(seed)) for method in methods for seed in seeds}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, HydraException):
        return set()


def _values(override: Any) -> list[str] | None:
    if override is None:
        return None
    if not override.is_sweep_override():
        return [str(override.value())]
    values = [value.strip("'\"") for value in islice(override.sweep_string_iterator(), MOST_VALUES + 1)]
    if len(values) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES} values")
    return values
