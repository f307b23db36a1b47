"""The files that the table of a data set names: whether they are there, without a look into them."""

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data.table import Manifest, as_on_disk, filled_names, refuse
from saliency_entropy.errors import UserError, listing, named

log = logging.getLogger(__name__)

# Why an existing file is not used: a manifest from somebody else must not reach its reader's own files.
OUTSIDE_ROOT = ("lies outside the data root", "is a link out of the data root")


def check_root(root: Path) -> None:
    """Raises UserError if the data root is not a folder."""
    try:
        if root.is_dir():
            return
        what = "is not a folder" if root.exists() else "does not exist"
    except OSError as error:  # of a folder above it
        what = f"cannot be looked at ({error.strerror})"
    raise UserError(f"data.root={named(root)} {what}; set data.root to the folder that holds the data set")


def file_problems(manifest: Manifest) -> list[tuple[int, str, str]]:
    """What is wrong with the files of a table, as far as can be said without opening them.

    Returns:
        (row, column, "'name', does not exist") for each file, images before human maps. Every image and every human
        map must be a file that is not empty and lies, links followed, inside the root; or one that the archive has.
    """
    problem = manifest.archive.problem if manifest.archive else _on_disk(manifest)
    problems = []
    for column in ("path",) if manifest.template_maps else ("path", "human_map"):
        names = filled_names(manifest.table[column])
        reasons = each(problem, names, thread_count())
        found = zip(names.index, names, reasons, strict=True)
        problems += [(row, column, f"{name!r}, {reason}") for row, name, reason in found if reason]
    return problems


def check_files(manifest: Manifest, remedy: str = "") -> None:
    """Raises UserError if there are :func:`file_problems`: it names all, in one line for each column, and a further
    remedy."""
    problems = file_problems(manifest)
    sentences = []
    kinds = (("path", "an image", "take their rows away"), ("human_map", "a human map", "empty their cells"))
    for column, kind, without in kinds:
        reasons = [reason for _, of, reason in problems if of == column]
        if reasons:
            found = [f"{manifest.where(row)}, {reason}" for row, of, reason in problems if of == column]
            remedies = [] if all(map(_is_outside, reasons)) else [f"copy these files again, or {without}"]
            if any(map(_is_outside, reasons)):
                remedies.append("no link may lead out of the data root: set data.root to a folder above its files")
            sentences.append(
                f"{manifest.origin}: column {column} must name {kind} under {manifest.root}: {listing(found)}; "
                + "; ".join([*remedies, *filter(None, [remedy])])
            )
    refuse(sentences)


def _is_outside(reason: str) -> bool:
    return reason.endswith(OUTSIDE_ROOT)


def refuse_broken(manifest: Manifest, broken: list[tuple[int, str]], remedy: str = "") -> None:
    """Raises UserError if anything is broken: it names every (row, reason), and the remedy."""
    if broken:
        remedies = {why.partition("; ")[2] for _, why in broken}
        if len(broken) > 1 and len(remedies) == 1:  # said once, not for every file
            broken = [(row, why.partition("; ")[0]) for row, why in broken]
            remedy = "; ".join(filter(None, [*remedies, remedy]))
        raise UserError(
            f"{manifest.origin}: {len(broken)} {'file' if len(broken) == 1 else 'files'} cannot be used: "
            + listing(f"{manifest.where(row)}: {why}" for row, why in sorted(broken))
            + (f"; {remedy}" if remedy else "")
        )


def without_broken(manifest: Manifest, broken: list[tuple[int, str, str]], option: str) -> Manifest:
    """:meth:`Manifest.without`, with a warning that names all that is left out and the option that leaves it out."""
    if not broken:
        return manifest
    log.warning(
        "%s: %d %s cannot be used and %s left out (%s=true): %s",
        manifest.origin, len(broken), *(("file", "is") if len(broken) == 1 else ("files", "are")), option,
        listing(f"{manifest.where(row)}: {why}" for row, _, why in sorted(broken)),
    )  # fmt: skip
    return manifest.without(broken)


def _on_disk(manifest: Manifest) -> Callable[[str], str | None]:
    """The function that says what is wrong with a file under the root, given its name."""
    root = os.path.realpath(manifest.root)
    inside = root.rstrip("/") + "/"
    # Links are followed once per folder, not once per file: 720,000 files lie in a few folders.
    names = pd.concat([filled_names(manifest.table[column]) for column in ("path", "human_map")])
    # Not Path.resolve, which raises where links go round in a circle; lstat reports that like any other error.
    folders = {name: os.path.realpath(inside + name) for name in {name.rpartition("/")[0] for name in names}}

    def problem(name: str) -> str | None:
        parent, _, base = as_on_disk(root, name).rpartition("/")
        folder = folders.get(parent) or os.path.realpath(inside + parent)
        if folder != root and not folder.startswith(inside):
            return OUTSIDE_ROOT[0]
        file = f"{folder}/{base}"
        try:
            status = os.lstat(file)
            if stat.S_ISLNK(status.st_mode):
                if not os.path.realpath(file).startswith(inside):
                    return OUTSIDE_ROOT[1]
                status = os.stat(file)  # noqa: PTH116 (ten times faster than Path)
        except (FileNotFoundError, NotADirectoryError):
            return "does not exist"
        except OSError as error:
            return f"cannot be looked at ({error.strerror})"
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        return None if status.st_size else "is empty (0 bytes)"

    return problem
