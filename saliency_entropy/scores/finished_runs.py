"""What the commands have in common that keep something of every run of a study beside it: scores, or maps."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from saliency_entropy.data.table import SPLITS
from saliency_entropy.errors import UserError, in_one_line, listing, whole_number
from saliency_entropy.run.folder import check_name, finished_result
from saliency_entropy.run.study_folders import run_folders
from saliency_entropy.scores.images import ScoredImages

log = logging.getLogger(__name__)


def check_settings(cfg: DictConfig, numbers: Mapping[str, int], or_null: Mapping[str, int]) -> None:
    """Refuse a split that there is not, and what is not a whole number.

    Args:
        cfg: of the command.
        numbers: key -> the least that it may be.
        or_null: the same of keys that may be null.

    Raises:
        UserError: names the key and what it may be.
    """
    for name, least in {**numbers, **or_null}.items():
        whole_number(name, cfg[name], least, or_null=name in or_null)
    if cfg.split not in SPLITS:
        raise UserError(f"split is {cfg.split!r}; choose of {', '.join(SPLITS)}")


def finished_folders(study: Path, consequence: str) -> list[Path]:
    """The folders of the finished runs; the others are named in the log.

    Args:
        study: its folder.
        consequence: what an unfinished run is therefore: ``not scored``.

    Raises:
        UserError: no run is finished, or ``study`` is no study.
    """
    folders = run_folders(study)
    finished = [folder for folder in folders if finished_result(folder) is not None]
    if not finished:
        raise UserError(f"no run in {study} is finished; give the command that trains them again")
    unfinished = [f"{folder.parent.name}/{folder.name}" for folder in folders if folder not in finished]
    if unfinished:
        log.warning("not finished, and so %s: %s", consequence, listing(unfinished))
    return finished


def set_name(cfg: DictConfig, images: ScoredImages) -> str:
    """The name of the set of images, and so of its files: ``cfg.set``, or that of the other data or of the split.

    Raises:
        UserError: it cannot be a file's name, or is that of the runs' own images, which these are not.
    """
    name = str(cfg.set or (images.data_name if "data" in cfg else cfg.split))
    check_name("set", name)
    if name in SPLITS and ("data" in cfg or name != cfg.split):
        raise UserError(f"set={name} is the name of the study's own {name} images, which a report reads; give another")
    return name


@contextmanager
def writing_alone(study: Path, lock: str, busy: str) -> Iterator[None]:
    """Keep a study's folder from a second such command, and say in one sentence what cannot be written.

    Args:
        study: its folder.
        lock: the name of the file that is locked in it.
        busy: what another process is then doing: ``runs/demo is being scored``.

    Raises:
        UserError: another process holds the lock, or a file cannot be written.
    """
    try:
        with FileLock(study / lock, timeout=0):
            yield
    except Timeout:
        raise UserError(f"{busy} by another process; wait for it") from None
    except OSError as error:
        raise UserError(
            f"{error.filename or study} cannot be written ({error.strerror or in_one_line(error)}); make room or give "
            "yourself access, then the same command goes on"
        ) from None
