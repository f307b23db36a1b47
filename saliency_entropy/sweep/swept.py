"""Which runs a sweep has, by the overrides of its command: a sweep that is launched, or the last one into a study."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from saliency_entropy.run.folder import plain_yaml

MOST_VALUES = 10_000  # of one key in a sweep


def sweep_overrides(hydra: Mapping[str, Any]) -> list[list[str]] | None:
    """The overrides of each run of a sweep, in the order of the sweep; None if its sweeper chooses them as it goes.

    Args:
        hydra: Hydra's part of the sweep's configuration, composed or as ``multirun.yaml`` keeps it.

    Raises:
        HydraException: an override cannot be read, or has more than :data:`MOST_VALUES` values.
    """
    sweeper, command_line = hydra["sweeper"], hydra["overrides"]["task"]
    if str(sweeper.get("_target_")).rpartition(".")[2] not in ("GridSweeper", "BasicSweeper"):
        return None
    if OmegaConf.is_list(command_line):
        command_line = OmegaConf.to_container(command_line, resolve=False)  # each run resolves its own
    overrides = parse_overrides(sweeper.get("params"), command_line)
    for override in overrides:
        if override.is_discrete_sweep():
            values = islice(override.sweep_string_iterator(), MOST_VALUES + 1)
            if sum(1 for _ in values) > MOST_VALUES:
                raise HydraException(f"{override.key_or_group} has more than {MOST_VALUES} values")
    return [run for batch in BasicSweeper.split_arguments(overrides, None) for run in batch]


def parse_overrides(params: Mapping[str, str] | None, command_line: list[str]) -> list[Override]:
    """The overrides of a sweep: its experiment's, then those of the command line, which count where both name a key.

    Args:
        params: of the sweeper, key -> values.
        command_line: such as ``seed=0,1``.

    Raises:
        HydraException: one of them cannot be read.
    """
    # method=glob(*) asks it for the files of the group.
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    texts = [*(f"{key}={value}" for key, value in (params or {}).items()), *command_line]
    return OverridesParser.create(loader).parse_overrides(texts)


def swept_runs(study: Path) -> set[tuple[str, int]]:
    """(method, seed) of the runs that the last sweep into a study was to train, by the ``multirun.yaml`` that it left
    there; empty if they are not known."""
    try:
        sweep = plain_yaml(study / "multirun.yaml")
        runs = sweep_overrides(sweep["hydra"]) or []
        values = [dict(override.lstrip("+").split("=", 1) for override in overrides) for overrides in runs]
        folders = {(run.get("runs_dir"), run.get("study")) for run in values}
        if len(folders) > 1:
            return set()  # runs in other folders, too
        return {
            (_unquoted(run.get("method") or sweep["method"]["name"]), int(_unquoted(run.get("seed") or sweep["seed"])))
            for run in values
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError, HydraException):
        return set()


def _unquoted(value: object) -> str:
    return str(value).strip("'\"")
