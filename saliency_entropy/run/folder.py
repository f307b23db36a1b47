"""The folder of a run: its name, which run it holds, and whether that run is done."""

import csv
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from saliency_entropy.errors import UserError, in_one_line, listing, whole_number
from saliency_entropy.run.variants import FILE
from saliency_entropy.run.whole_files import write_atomically

log = logging.getLogger(__name__)

# Keys that may change between two launches of a run without changing its result.
KEYS_WITHOUT_EFFECT = (
    "runs_dir", "study", "threads", "logger", "max_attempts", "data.num_workers", "data.check",
    "data.cache", "data.cache_folder", "data.cached_splits",
    "data.source.folder",  # of the built-in faces, which are the same wherever they are drawn
    # The number of devices that share a batch, and their kind, change no more than the last digits.
    "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.enable_progress_bar",
)  # fmt: skip

# Keys that say where the images are. Of a run that goes on, the bytes say whether images elsewhere are the same; of one
# that is done, which opens none, the user has to.
DATA_FOLDER_KEYS = {"data.root", "data.source.root", "data.source.path"}

DIGESTS = "image_digests"  # the file in a run's folder: of each training and validation image 8 bytes

MOST_LEVELS = 50  # of a YAML file that is read back
# OmegaConf's, to which 1e-3 is a number; ten times as fast where PyYAML was built with its parser in C.
_Loader = get_yaml_loader()
if hasattr(yaml, "CSafeLoader"):
    _Loader = type("_Loader", (yaml.CSafeLoader, _Loader), {})
MOST_LETTERS = 200  # of a name; disks allow 255, and the names of files that are being written are longer
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._=,+@-]{{0,{MOST_LETTERS - 1}}}")
_ALLOWED = f"use up to {MOST_LETTERS} letters, digits and . _ = , + @ -"


def study_folder(runs_dir: str, study: str) -> str:
    """``runs_dir/study``; a study may name a sub-folder (``weights/0.3``), never a folder above.

    Raises:
        UserError: the name is too long, or has other characters than letters, digits and ``. _ = , + @ -``.
    """
    if not all(_NAME.fullmatch(name) for name in str(study).split("/")):
        raise UserError(
            f"study={study!r} cannot name a folder: {_ALLOWED}, beginning with a letter or digit, "
            "with / for a sub-folder"
        )
    return str(Path(str(runs_dir)) / str(study))


def check_name(key: str, name: str) -> None:
    """Raises UserError if ``name``, the value of ``key``, cannot be the name of a file or folder."""
    if not _NAME.fullmatch(str(name)):
        raise UserError(f"{key}={name!r} cannot name a folder: {_ALLOWED}")


def run_folder(runs_dir: str, study: str, method: str, seed: int) -> str:
    """``runs_dir/study/method/seed<seed>``.

    Raises:
        UserError: the study or the method cannot name a folder, or the seed is not a whole number from 0 on.
    """
    folder = study_folder(runs_dir, study)
    check_name("method.name", method)
    whole_number("seed", seed, 0, 2**32 - 1)
    return str(Path(folder) / method / f"seed{seed}")


def run_subfolder(method: str, seed: int) -> str:
    """``method/seed<seed>`` in the folder of a sweep.

    Hydra makes this folder before the run can refuse a name, so a name that will be refused does not become a folder.
    """
    if not _NAME.fullmatch(str(method)) or not re.fullmatch(r"\d+", str(seed)):
        return "refused"
    return f"{method}/seed{seed}"


def register_resolvers() -> None:
    """Let the configuration write ``${study_folder:...}``, ``${run_folder:...}`` and ``${run_subfolder:...}``, so that
    Hydra makes no folder for a name that is refused."""
    for resolver in (study_folder, run_folder, run_subfolder):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def plain_values(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """A composed configuration as plain values, without Hydra's part; raises OmegaConfBaseException if one of them
    cannot be resolved."""
    plain = {}
    for key in [key for key in config if key != "hydra"]:
        value = config[key] if resolve else config._get_node(key)
        if OmegaConf.is_config(value):
            plain[key] = OmegaConf.to_container(value, resolve=resolve)
        else:
            plain[key] = value if resolve else value._value()
    return plain


def has_effect(key: str) -> bool:
    """Whether a key of the configuration decides a run's result, or is part of one that does."""
    return not any(key == name or key.startswith(f"{name}.") for name in KEYS_WITHOUT_EFFECT)


def scientific_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides a run's result, as ``a.b.c`` -> value."""
    return {key: value for key, value in flatten(config).items() if has_effect(key)}


def config_hash(config: dict[str, Any]) -> str:
    """16 hex digits; two runs have the same ones if their :func:`scientific_config` is the same."""
    text = json.dumps(scientific_config(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished_result(folder: Path) -> dict[str, Any] | None:
    """The ``result.json`` of a finished run, or None; raises UserError if it cannot be read."""
    path = folder / "result.json"
    remedy = "delete it to score the run again"
    try:
        result = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({in_one_line(error)}); {remedy}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    if not isinstance(result, dict):
        raise UserError(f"{path} is damaged (it is not a table of names and values); {remedy}")
    return result


def plain_yaml(path: Path) -> Any:
    """The content of a file that Hydra or a run wrote, such as a configuration, as plain values.

    Raises:
        OSError, ValueError, yaml.YAMLError: the file cannot be read.
    """
    return yaml.load(_bounded(path.read_text()), _Loader)


def read_config(folder: Path) -> dict[str, Any]:
    """A run's ``config.yaml``. A run writes it resolved; an interpolation that somebody put there stays text.

    Raises:
        OSError, ValueError, yaml.YAMLError: the file cannot be read, or is not a configuration.
    """
    config = plain_yaml(folder / "config.yaml")
    if not isinstance(config, dict):
        raise ValueError("it is not a configuration")
    return config


def _bounded(text: str) -> str:
    """YAML that takes about as much memory as it has letters; raises ValueError for any other."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            # Two kilobytes of aliases of aliases are billions of values.
            raise ValueError("it has YAML aliases, which no run writes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    return text


def epochs_done(folder: Path) -> int:
    """The number of whole epochs of a run: the rows of its ``metrics.csv``."""
    try:
        with (folder / "metrics.csv").open(newline="") as file:
            return max(0, sum(1 for _ in csv.reader(file)) - 1)
    except (OSError, ValueError, csv.Error):
        return 0


def is_begun(folder: Path) -> bool:
    """Whether a run has whole epochs, or is done."""
    return (folder / "result.json").exists() or (folder / "checkpoints" / "resume.ckpt").exists()


def check_same_run(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that holds a run, finished or begun, of another configuration.

    Raises:
        UserError: names the folder, and the keys that differ with both values.
    """
    differing = differing_keys(folder, config) if is_begun(folder) else {}
    goes_on = (folder / DIGESTS).exists() and not (folder / "result.json").exists()
    if differing and not (goes_on and differing.keys() <= DATA_FOLDER_KEYS):
        remedy = "give this one a study= of its own, or delete that folder"
        if differing.keys() <= DATA_FOLDER_KEYS:
            remedy = f"if these are the same images, give their folder that name, by a link for instance; else {remedy}"
        raise UserError(f"{folder} holds a run of another configuration ({in_words(differing)}): {remedy}")


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """``lr is 0.1 there and 0.2 here``, for the first keys of key -> (there, here); the others are counted."""
    shown = [f"{key} is {there} there and {here} here" for key, (there, here) in list(differing.items())[:4]]
    return "; ".join(shown) + (f" and {len(differing) - 4} more keys" if len(differing) > 4 else "")


def is_done(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a run is done; raises UserError if the folder holds a run of another configuration."""
    check_same_run(folder, config)
    return finished_result(folder) is not None


def differing_keys(folder: Path, config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which ``config`` and a folder's ``config.yaml`` decide different results: key -> (there, here).
    Raises UserError if the file cannot be read."""
    try:
        there, here = scientific_config(read_config(folder)), scientific_config(config)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder / 'config.yaml'} cannot be read ({in_one_line(error)}), so what was trained there is not known; "
            f"put it back, or delete {folder} to train the run again"
        ) from None
    keys = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    return {key: (there.get(key), here.get(key)) for key in keys}


def check_same_data(folder: Path, data_hash: str) -> None:
    """Refuse to go on with a run that began with other data: its first epochs saw other images.

    Raises:
        UserError: the manifest, or the choice of files left out of it, has changed since then.
    """
    kept = folder / "data_hash.txt"
    if (folder / "checkpoints" / "resume.ckpt").exists() and kept.exists() and kept.read_text() != data_hash:
        raise UserError(
            f"{folder} began with other data: the manifest has changed since, or the files that are left out of it "
            "(data.skip_broken), or this version reads them otherwise; put them back, or delete "
            f"{folder / 'checkpoints'} to begin anew"
        )


def check_same_images(folder: Path, names: Sequence[str], digests: bytes) -> None:
    """Raises UserError, naming the images, if the first epochs of a run saw other bytes of these images or their human
    maps; else their digests are kept: 8 bytes for each, or none if they are not known."""
    kept = folder / DIGESTS
    before = kept.read_bytes() if kept.exists() and (folder / "checkpoints" / "resume.ckpt").exists() else b""
    if before and not digests:
        log.warning("data.check=headers: whether %s began with these very images is not known", folder)
    elif len(before) == len(digests) and before != digests:
        changed = [name for at, name in enumerate(names) if before[8 * at : 8 * at + 8] != digests[8 * at : 8 * at + 8]]
        raise UserError(
            f"{folder} began with other images: of {len(names)} training and validation images, {len(changed)} or "
            f"their human maps have other bytes now ({listing(changed)}); put these files back, or delete "
            f"{folder / 'checkpoints'} to begin anew"
        )
    elif digests:
        write_atomically(kept, digests)


def save_data_hash(folder: Path, data_hash: str) -> None:
    write_atomically(folder / "data_hash.txt", data_hash)


def save_config(folder: Path, config: DictConfig) -> None:
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))


def describe_files(folder: Path, method: str, seed: int) -> None:
    """Write a ``README.md``, where it is missing, that names the files of a run, and one for those of its study
    or, of a variant, studies."""
    described = {folder: "run_folder.md"}
    if folder.parts[-2:] == (method, f"seed{seed}"):  # not a folder of a caller's own choice
        study = folder.parents[1]
        # That of a variant lies in the study that it is a variant of.
        described |= dict.fromkeys([study, *([study.parent] if (study / FILE).exists() else [])], "study_folder.md")
    for place, text in described.items():
        if not (place / "README.md").exists():
            write_atomically(place / "README.md", Path(__file__).with_name(text).read_text())


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as ``a.b.c`` -> value."""
    if not isinstance(config, dict):
        return {prefix: config}
    flat = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
