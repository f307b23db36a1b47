"""The folder of a run: its name, whose it is, and whether the run is done."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.errors import UserError

# What may change between two launches of the same run without changing its result.
NOT_HASHED = (
    "runs_dir", "study", "threads", "logger", "data.num_workers", "data.check",
    "data.cache", "data.cache_folder", "data.cached_splits",
    "data.source.folder",  # of the built-in faces, which are the same wherever they are drawn
)  # fmt: skip
NOT_HASHED_TRAINER = ("trainer.accelerator", "trainer.enable_progress_bar")

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+@-]*")


def study_folder(runs_dir: str, study: str) -> str:
    """``runs_dir/study``; a study may name a sub-folder (``weights/0.3``), never a folder above.

    Raises:
        UserError: the name has other characters than letters, digits and ``. _ = , + @ -``.
    """
    for segment in str(study).split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise UserError(
                f"study={study!r} cannot name a folder: use letters, digits and . _ = , + @ -, "
                "beginning with a letter or digit, with / for a sub-folder"
            )
    return str(Path(str(runs_dir)) / str(study))


def check_name(key: str, name: str) -> None:
    """Raises UserError if ``name``, the value of ``key``, cannot be the name of a file or folder."""
    if not _SEGMENT.fullmatch(str(name)):
        raise UserError(f"{key}={name!r} cannot name a folder: use letters, digits and . _ = , + @ -")


def run_folder(runs_dir: str, study: str, method: str, seed: int) -> str:
    """``runs_dir/study/method/seed<seed>``.

    Raises:
        UserError: the study or the method cannot name a folder, or the seed is not a whole number from 0 on.
    """
    folder = study_folder(runs_dir, study)
    check_name("method.name", method)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed!r} is not a whole number from 0 to 4294967295")
    return str(Path(folder) / method / f"seed{seed}")


def run_subfolder(method: str, seed: int) -> str:
    """``method/seed<seed>`` in the folder of a sweep.

    Hydra makes it before the run can refuse a name, so a name that will be refused is not taken over here.
    """
    if not _SEGMENT.fullmatch(str(method)) or not re.fullmatch(r"\d+", str(seed)):
        return "refused"
    return f"{method}/seed{seed}"


def register_resolvers() -> None:
    """Let the configuration write ``${study_folder:...}``, ``${run_folder:...}`` and ``${run_subfolder:...}``, so that
    Hydra makes no folder for a name that is refused."""
    for resolver in (study_folder, run_folder, run_subfolder):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def scientific_config(config: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's result, as ``a.b.c`` -> value."""
    flat = flatten(config)
    left_out = (*NOT_HASHED, *NOT_HASHED_TRAINER)
    return {
        key: value
        for key, value in flat.items()
        if not any(key == name or key.startswith(name + ".") for name in left_out)
    }


def config_hash(config: dict[str, Any]) -> str:
    """16 hex digits that two runs share when their :func:`scientific_config` is the same."""
    text = json.dumps(scientific_config(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished_result(folder: Path) -> dict[str, Any] | None:
    """The ``result.json`` of a finished run, or None."""
    try:
        return json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{folder / 'result.json'} is not JSON ({error}); delete it to score the run again") from None


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Hold a run's folder; the system lets go of it when this process ends, however it ends.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{folder} is being trained by another process; wait for it, or give another study=") from None


def check_same_run(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that holds a run, finished or begun, of another configuration.

    Raises:
        UserError: names the folder, and the keys that differ with both values.
    """
    kept = folder / "config.yaml"
    begun = (folder / "result.json").exists() or (folder / "checkpoints" / "resume.ckpt").exists()
    if not kept.exists() or not begun:
        return
    theirs = scientific_config(OmegaConf.to_container(OmegaConf.load(kept)))
    ours = scientific_config(config)
    differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if differing:
        shown = "; ".join(f"{key} is {theirs.get(key)} there and {ours.get(key)} here" for key in differing[:4])
        more = f" and {len(differing) - 4} more keys" if len(differing) > 4 else ""
        raise UserError(
            f"{folder} holds a run of another configuration ({shown}{more}): "
            "give this one a study= of its own, or delete that folder"
        )


def check_same_data(folder: Path, data_hash: str) -> None:
    """Refuse to go on with a run that began with other data: its first epochs would be of other images.

    Raises:
        UserError: the manifest, or what was left out of it, has changed since then.
    """
    kept = folder / "data_hash.txt"
    if (folder / "checkpoints" / "resume.ckpt").exists() and kept.exists() and kept.read_text() != data_hash:
        raise UserError(
            f"{folder} began with other data: the manifest has changed since, or the files that are left out of it "
            f"(data.skip_broken); put them back, or delete {folder / 'checkpoints'} to begin anew"
        )
    write_atomically(kept, data_hash)


def save_config(folder: Path, config: DictConfig) -> None:
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file that takes ``path``'s place at the end: a reader, or a run that comes after a kill, never sees
    half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        yield temporary
        os.fsync(handle)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file whole or not at all; see :func:`written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as ``a.b.c`` -> value."""
    if not isinstance(config, dict):
        return {prefix: config}
    flat = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
