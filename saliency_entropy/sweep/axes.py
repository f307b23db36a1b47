"""What a command varies beside method and seed, its axes, and the variant of its study that each run is of."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError, in_one_line, listing
from saliency_entropy.run.command import no_environment_variables, sentence
from saliency_entropy.run.folder import differing_keys, has_effect, in_words, is_begun
from saliency_entropy.run.study_folders import seed_folders
from saliency_entropy.run.variants import read_variant, variant_folders, variant_name
from saliency_entropy.sweep.jobs import composed_runs, plain_config
from saliency_entropy.sweep.swept import is_grid, parse_overrides, sweep_overrides

NO_AXES = {"method", "seed", "study", "runs_dir"}  # these name folders by themselves


class VariantRun(NamedTuple):
    """A run of a sweep: the overrides that its configuration is composed with, among them the study of its variant;
    that configuration, with Hydra's part, to be used before the next run is asked for; and full key -> value of its
    variant, empty if its study has none."""

    overrides: list[str]
    config: DictConfig
    variant: dict[str, Any]


def variant_runs(loader: ConfigLoader, config: DictConfig) -> Iterator[VariantRun]:
    """Every run of a sweep, by Hydra's loader and the sweep's configuration, each in the study of its variant.

    Raises:
        UserError: a run cannot be composed, what is varied does not change a run, or the study does not have these
            axes; after the last run, if the study has variants with other settings.
    """
    overrides = sweep_overrides(config.hydra)
    variants = Variants(config)
    of_method: dict[str, list[str]] = {}
    runs = composed_runs(loader, config, overrides)
    for own in overrides:
        try:
            run = next(runs)
        except HydraException as error:
            swept = " ".join(text for text in own if _key(text) in variants.varied | {"method"})
            raise UserError(
                f"{swept or 'the command'} cannot be composed: {sentence(error) or in_one_line(error, 300)}"
            ) from None
        if run.study != config.study and not any(text.startswith("study=") for text in own):
            raise UserError(
                f"a value that is swept names the study, too ({config.study}, {run.study}): give study=, the one study "
                "whose variants the runs are"
            )
        study = run._get_node("study")._value()  # as it stands there, perhaps an interpolation
        variant = variants.enter(run)
        of_method[run.method.name] = own
        if variant:
            own = [*(text for text in own if not text.startswith("study=")), f"study='{run.study}'"]
        yield VariantRun(own, run, variant)
        run.study = study
    variants.refuse_other_settings(loader, of_method)


def enter_variant(loader: ConfigLoader, config: DictConfig) -> dict[str, Any]:
    """As :meth:`Variants.enter`, for a single run; the study's other variants must have its settings."""
    variants = Variants(config)
    values = variants.enter(config)
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    variants.refuse_other_settings(loader, {config.method.name: given})
    return values


class Variants:
    """The variants that the runs of one command are of, by its configuration with Hydra's part.

    Raises:
        UserError: what is varied does not change a run.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.varied: set[str] = set()  # the keys that the command sweeps beside method and seed, or its experiment does
        self.axes: dict[Path, set[str]] = {}  # by the folder of a study
        if not is_grid(config.hydra.sweeper):
            return
        given = parse_overrides(None, config.hydra.overrides.task)
        swept = [override.get_key_element().lstrip("+") for override in given if override.is_sweep_override()]
        self.varied = {*swept, *(config.hydra.sweeper.get("params") or ())} - NO_AXES
        for key in sorted(self.varied):
            if not has_effect(key):
                raise UserError(
                    f"{key} does not change what a run computes, so no axis is made of it: give it one value"
                )

    def enter(self, run: DictConfig) -> dict[str, Any]:
        """Give a run the study of its variant, ``<study>/<variant>``, unless its study has no variants.

        Returns:
            Full key -> value of the variant; empty if the study has none.

        Raises:
            UserError: the study has other axes or none, or is itself another variant.
        """
        with no_environment_variables():
            study = Path(str(run.runs_dir), str(run.study))  # a name that is none is refused where it is used
            within = read_variant(study)
            if study not in self.axes:
                self.axes[study] = set(within) if within else self._axes_of(study)
            values = {key: _value(run, key) for key in sorted(self.axes[study])}
        if within and not (self.varied <= within.keys() and variant_name(values) == study.name):
            raise UserError(
                f"{study} is one variant of {study.parent}, and this command names others: give study= of that"
            )
        if not values or within:
            return {}
        run.study = f"{run.study}/{variant_name(values)}"
        return values

    def _axes_of(self, study: Path) -> set[str]:
        folders = variant_folders(study)
        for folder in folders:
            values = read_variant(folder) or {}
            if variant_name(values) != folder.name:
                raise UserError(
                    f"{folder} holds the variant {variant_name(values)}: give it that name, or move it out of the study"
                )
            if not self.varied <= values.keys():
                raise UserError(
                    f"the variants of {study} differ in {_listed(values)}, those of this command in "
                    f"{_listed(self.varied | values.keys())}: give these a study= of their own"
                )
        if not folders and self.varied and study.is_dir() and seed_folders(study):
            raise UserError(
                f"{study} has runs without variants, beside which those that differ in {_listed(self.varied)} cannot "
                "stand: give these a study= of their own"
            )
        return set(read_variant(folders[0])) if folders else self.varied

    def refuse_other_settings(self, loader: ConfigLoader, of_method: Mapping[str, list[str]]) -> None:
        """Refuse a command by which the runs of the study's other variants would not be the same.

        Args:
            loader: Hydra's.
            of_method: method -> the overrides of a run of the command.
        """
        for study, axes in self.axes.items():
            begun = (run for folder in variant_folders(study) for run in filter(is_begun, seed_folders(folder)))
            # One that can be compared is enough, since the others were compared with it.
            for run in islice((run for run in begun if run.parent.name in of_method), 3):
                own = [text for text in of_method[run.parent.name] if _key(text) not in axes]
                own += [self._override(key, value) for key, value in (read_variant(run.parents[1]) or {}).items()]
                own += [f"seed={run.name.removeprefix('seed')}"]
                try:
                    differing = differing_keys(run, plain_config(next(composed_runs(loader, self.config, [own]))))
                except (HydraException, OmegaConfBaseException, UserError):
                    continue  # this command cannot have it, or its files are damaged
                differing = {key: values for key, values in differing.items() if key not in axes}
                if differing:
                    raise UserError(
                        f"{study} has variants with other settings ({in_words(differing)}), with which those of this "
                        f"command could not be compared: give these a study= of their own, or the settings of {run}"
                    )
                break

    def _override(self, key: str, value: Any) -> str:
        is_group = key in self.config.hydra.runtime.choices
        return f"{key}={value}" if is_group else f"++{key}={json.dumps(value, ensure_ascii=False)}"


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+")


def _value(run: DictConfig, key: str) -> Any:
    choices = run.hydra.runtime.choices
    value = choices[key] if key in choices else OmegaConf.select(run, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _listed(keys: Iterable[str]) -> str:
    return listing(sorted(keys)).replace("; ", " and ")
