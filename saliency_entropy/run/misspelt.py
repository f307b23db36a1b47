"""What a command line names wrongly: two options of a group, or none; and keys, groups and options that the
configuration lacks, each with the nearest right name."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import flatten, plain_values

# The groups of conf/ of which a run has one option each.
GROUPS = ("method", "backbone", "data", "protocol", "trainer", "logger", "experiment", "debug")
# Keys without a default, as they are given.
ADDED = ("+data.human_maps.control", "+data.human_maps.colormap")


def suggestions(arguments: Sequence[str], folders: Sequence[Path], name: str) -> list[str]:
    """A sentence for each override that names what is not there, such as ``methd: did you mean method?``.

    Args:
        arguments: the command line, flags included.
        folders: of configuration files, the command's own first.
        name: of its main file, ``train``.
    """
    given = [argument.partition("=") for argument in arguments if "=" in argument and argument[0] not in "-+~"]
    groups = {
        path.relative_to(folder).as_posix(): {option.stem for option in path.glob("*.yaml")}
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_dir()
    }
    right = [f"{key}={value}" for key, _, value in given if value in groups.get(key, ())]
    keys = list(_keys(folders[0], name, right))
    said = [
        f"{argument}: an argument is KEY=VALUE, and --help lists the keys"
        for before, argument in pairwise(["", *arguments])
        if argument[:1] not in ("-", "+", "~") and "=" not in argument and not before.startswith("-")
    ]
    for key, _, value in given:
        group = key.partition("@")[0]
        if group in groups:
            names = [option.strip(" '\"") for option in value.split(",")]
            wrong = [option for option in names if option.isidentifier() and option not in groups[group]]
            said += [_meant(f"{key}={option}", option, groups[group], f"{key}=") for option in wrong]
        elif key not in keys and not key.startswith("hydra"):
            said.append(_sibling(key, value, keys, folders) or _meant(key, key, [*groups, *keys]))
    return [sentence for sentence in said if sentence]


def _keys(folder: Path, name: str, overrides: list[str]) -> Iterator[str]:
    """Every key of the configuration, those of its parts included: ``trainer``, ``trainer.max_epochs``."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = OmegaConf.to_container(compose(name, overrides))
    except (HydraException, OmegaConfBaseException):
        return
    for key in flatten(config):
        parts = key.split(".")
        yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


@contextmanager
def refused_additions(config: DictConfig, overrides: Sequence[str]) -> Iterator[None]:
    """Raise UserError for Python's error about an argument that one of the ``overrides`` adds
    (``+data.chek=headers``) to a part of ``config`` that takes none of that name."""
    try:
        yield
    except (TypeError, InstantiationException) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        for override in overrides if unknown else ():
            key = override.lstrip("+").partition("=")[0]
            part, _, last = key.rpartition(".")
            if override.startswith("+") and last == unknown[1]:
                near = _beside(key, [*flatten(plain_values(config, resolve=False)).keys() - {key}])
                remedy = f"did you mean {near}?" if near else "leave it out"
                raise UserError(f"+{key}: {part} takes no {last}; {remedy}") from error
        raise


def _beside(key: str, keys: Sequence[str]) -> str:
    """The key of the same part that is most like ``key``; empty if none is like it."""
    part, _, last = key.rpartition(".")
    beside = {
        name: known
        for known in (*keys, *ADDED)
        for of, _, name in [known.lstrip("+").rpartition(".")]
        if part and of == part
    }
    return next((beside[name] for name in difflib.get_close_matches(last, beside, 1)), "")


def _sibling(key: str, value: str, keys: Sequence[str], folders: Sequence[Path]) -> str:
    # Some keys have no default, such as those of Lightning's Trainer: nothing like them stands beside them.
    part, _, last = key.rpartition(".")
    near = _beside(key, keys)
    if near and near != f"+{key}":
        return f"{key}: did you mean {near}?"
    if part not in keys:
        return ""
    # Whoever gives data.root alone means another file of the group than the one that is chosen.
    files = sorted(file for folder in folders for file in (folder / part).glob("*.yaml"))
    own = re.compile(rf"^{re.escape(last)}:", re.MULTILINE)
    having = [file.stem for file in files if own.search(file.read_text("utf-8", "replace"))]
    if having:
        return f"{key}: this {part} has no {last}; with {part}={' or '.join(having)} it has one"
    return f"{key}: {part} has no {last}; if it takes one, +{key}={value} gives it"


def _meant(given: str, name: str, names: Sequence[str] | set[str], prefix: str = "") -> str:
    # Whoever leaves out a part's name (max_epochs=3) means a key of that part, not one that looks alike.
    close = sorted({known for known in names if known.endswith(f".{name}")})
    close = close or difflib.get_close_matches(name, sorted(names), 1)
    return f"{given}: did you mean {' or '.join(prefix + known for known in close)}?" if close else ""


def refuse_mixtures(hydra: Mapping[str, Any]) -> None:
    """Refuse a list of options for one group, whose files Hydra would merge under the name of the last one.

    Args:
        hydra: Hydra's part of a composed configuration; a group with a list is missing from its choices.

    Raises:
        UserError: names the group and what was given.
    """
    for group in GROUPS:
        if group in hydra["runtime"]["choices"]:
            continue
        given = [text for text in hydra["overrides"]["task"] if re.match(rf"[+~]*{group}(=|$)", text)]
        options = ",".join(re.findall(r"[\w-]+", given[-1].partition("=")[2])) if given else ""
        if group in ("experiment", "debug") and given and "," not in options:
            continue  # none (~debug) or a list of one: these name no run
        remedy = "one command for each"
        if "," in options and group not in ("experiment", "debug"):
            remedy = f"-m {group}={options} for a run with each"
        raise UserError(
            f"{given[-1] if given else f'a list of options for {group}'} is not one option of conf/{group}, and two "
            f"would be mixed into one run: give {group}= one option, or {remedy}"
        )


def refuse_null(arguments: Sequence[str]) -> None:
    """End the command with a sentence if it gives a group no option (``logger=null``), at which Hydra fails before it
    calls anything of this package."""
    for argument in arguments:
        group, _, options = argument.lstrip("+").partition("=")
        if group in GROUPS and "null" in options.lower().split(","):
            raise SystemExit(f"{argument} names no option of conf/{group}: give one, or leave it out")
