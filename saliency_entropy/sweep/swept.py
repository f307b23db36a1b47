"""Which runs a sweep has, by the overrides of its command: a sweep that is launched, or the last one into a study."""

from collections.abc import Mapping, Sequence
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

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import plain_yaml

MOST_RUNS = 10_000  # of a sweep


def is_grid(sweeper: Mapping[str, Any]) -> bool:
    """Whether the settings are those of ``hydra/sweeper=grid``."""
    return str(sweeper.get("_target_")).endswith(".GridSweeper")


def sweep_overrides(hydra: Mapping[str, Any]) -> list[list[str]] | None:
    """The overrides of each run of a sweep, in the order of the sweep; None if its sweeper chooses them as it goes.

    Args:
        hydra: Hydra's part of the sweep's configuration, composed or as ``multirun.yaml`` keeps it.

    Raises:
        HydraException: an override cannot be read.
        UserError: there are more runs than :data:`MOST_RUNS`.
    """
    sweeper, command_line = hydra["sweeper"], hydra["overrides"]["task"]
    if not is_grid(sweeper) and not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        return None
    overrides = parse_overrides(sweeper.get("params"), command_line)
    runs = 1
    for override in {override.get_key_element(): override for override in overrides}.values():
        if override.is_discrete_sweep():
            runs *= sum(1 for _ in islice(override.sweep_string_iterator(), MOST_RUNS + 1))
            if runs > MOST_RUNS:
                raise UserError(
                    f"the sweep has more than {MOST_RUNS:,} runs: vary less, or give several commands, each with a part"
                )
    return [run for batch in BasicSweeper.split_arguments(overrides, None) for run in batch]


def parse_overrides(params: Mapping[str, str] | None, command_line: Sequence[str]) -> list[Override]:
    """The overrides of a sweep: its experiment's, then those of the command line, which count where both name a key.

    Args:
        params: of the sweeper, key -> values.
        command_line: such as ``seed=0,1``.

    Raises:
        HydraException: one of them cannot be read.
    """
    if OmegaConf.is_list(command_line):
        command_line = OmegaConf.to_container(command_line, resolve=False)  # each run resolves its own
    # method=glob(*) asks it for the files of the group.
    loader = GlobalHydra.instance().config_loader() if GlobalHydra.instance().is_initialized() else None
    texts = [*(f"{key}={value}" for key, value in (params or {}).items()), *command_line]
    return OverridesParser.create(loader).parse_overrides(texts)


def swept_together(runs: Sequence[Sequence[str]]) -> list[str]:
    """The overrides of a sweep that has the given runs, each by its overrides: ``seed=0`` and ``seed=1`` make
    ``seed=0,1``."""
    values: dict[str, list[str]] = {}
    for text in dict.fromkeys(text for own in runs for text in own):
        key, _, value = text.partition("=")
        values.setdefault(key, []).append(value)
    return [f"{key}={','.join(of_key)}" for key, of_key in values.items()]


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
