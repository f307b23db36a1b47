"""A data set without a table: the folders say what each image is."""

import logging
import os
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from saliency_entropy.data.human_maps.join import is_folder, is_text, with_human_maps
from saliency_entropy.data.images import EXTENSIONS
from saliency_entropy.data.listed_files import check_root
from saliency_entropy.data.table import ALIASES, LABELS, SPLITS, Manifest, complete, refuse, suggestion
from saliency_entropy.errors import listing

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "split", "generator", "source")
# The allowed names of folders of the first and of the second level, and their meaning.
SPLIT_FOLDERS, LABEL_FOLDERS = (
    {**{name: name for name in names}, **{alias: name for alias, name in ALIASES.items() if name in names}}
    for names in (SPLITS, LABELS)
)


def folder_tree(root: str | Path, maps: str | Sequence[str] | None = None) -> Manifest:
    """The manifest of images in folders ``split/label/[generator/...]``.

    Splits are ``train``, ``val`` (also ``valid``, ``validation``) and ``test``; labels are ``real`` (also ``0_real``)
    and ``synthetic`` (also ``fake``, ``1_fake``). The folder below the label is the generator of a synthetic and the
    source of a real image; folders below that are part of the path only.

    Args:
        root: the folder that holds those of the splits.
        maps: folders of human maps, which are not searched for images:
            :func:`~saliency_entropy.data.human_maps.join.join_by_base_name`.

    Returns:
        The manifest, sorted by path. Hidden files, and files without the extension of an image, are left out and
        counted in the log.

    Raises:
        UserError: names every folder of images that is not named as a split or label, every image outside of such
            folders, every link to a folder, and every folder that cannot be read; or the rows that are wrong; or the
            maps cannot be joined.
    """
    root = Path(root)
    check_root(root)
    folders_of_maps = [maps] if isinstance(maps, str) else maps or []
    found = _walk(root, {posixpath.normpath(folder.strip("/")) for folder in folders_of_maps})
    rows, problems = _rows(root, found.images)
    problems += _obstacles(root, found)
    if not rows and not problems:
        problems = [
            f"{root} holds no image ({', '.join(EXTENSIONS)}); put images into folders split/label, such as train/real"
        ]
    refuse(problems)
    if found.left_out:
        kinds = listing(f"{count} {kind}" for kind, count in sorted(found.left_out.items()))
        log.warning("%s: left out %d files that are no images: %s", root, found.left_out.total(), kinds)
    table = pd.DataFrame(rows, columns=COLUMNS)
    unread = tuple(sorted(found.left_out.items()))
    return with_human_maps(complete(Manifest(table, root, str(root), from_file=False, unread=unread)), maps)


@dataclass
class _Found:
    """What lies below a folder; all names are relative to it."""

    images: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # how many of each kind
    links: list[str] = field(default_factory=list)  # to folders
    unreadable: list[str] = field(default_factory=list)  # folders, and why
    no_text: list[str] = field(default_factory=list)  # images and folders whose names are not UTF-8


def _walk(root: Path, without: set[str]) -> _Found:
    found = _Found()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(root / folder))
        except OSError as error:
            found.unreadable.append(f"{folder or '.'!r} ({error.strerror})")
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            folder_itself, extension = is_folder(entry), posixpath.splitext(entry.name)[1].lower()
            if name in without:
                continue
            if entry.name.startswith("."):  # macOS writes hidden files with an image's extension beside it
                found.left_out["hidden"] += 1
            elif not folder_itself and extension not in EXTENSIONS:
                found.left_out[ascii(extension)[1:-1] or "without extension"] += 1
            elif not is_text(name):
                found.no_text.append(name)
            elif not folder_itself:
                found.images.append(name)
            elif entry.is_symlink():
                found.links.append(name)
            else:
                pending.append(name)
    found.images.sort()
    return found


def _rows(root: Path, images: list[str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The row of each image, in the order of :data:`COLUMNS`; and the sentences about images without a row."""
    rows, outside = [], []
    no_split: Counter[str] = Counter()
    no_label: Counter[str] = Counter()
    for path in images:
        folders = path.split("/")[:-1]
        split = SPLIT_FOLDERS.get(folders[0]) if folders else None
        label = LABEL_FOLDERS.get(folders[1]) if len(folders) > 1 else None
        if split and label:
            below = folders[2] if len(folders) > 2 else ""
            generator, source = ("", below) if label == "real" else (below, "")
            rows.append((path, label, split, generator, source))
        elif folders and not split:
            no_split[folders[0]] += 1
        elif len(folders) > 1:
            no_label["/".join(folders[:2])] += 1
        else:
            outside.append(path)
    problems = _misnamed(root, "below data.root", "a split", no_split, SPLITS)
    problems += _misnamed(root, "below a split", "a label", no_label, LABELS)
    if outside:
        problems.append(
            f"{root}: images must lie in folders split/label, such as train/real: "
            f"{listing(map(repr, outside), len(outside))}; move them there, or out of data.root"
        )
    return rows, problems


def _misnamed(root: Path, where: str, what: str, folders: Counter[str], allowed: Sequence[str]) -> list[str]:
    if not folders:
        return []
    listed = (
        f"{folder!r} with {count} image{'s' if count > 1 else ''}{suggestion(posixpath.basename(folder), allowed)}"
        for folder, count in sorted(folders.items())
    )
    return [
        f"{root}: folders of images {where} must be named as {what} ({', '.join(allowed)}): "
        f"{listing(listed, len(folders))}; rename them, move them out of data.root, or, if they are human maps, name "
        "them: data.source.maps=FOLDER"
    ]


def _obstacles(root: Path, found: _Found) -> list[str]:
    """The sentences about what cannot be read as a folder tree."""
    links, no_text = map(repr, sorted(found.links)), map(ascii, sorted(found.no_text))
    kinds = (
        (listing(links), "links to folders are not followed", "put the folders there themselves"),
        (listing(sorted(found.unreadable)), "folders cannot be read", "give yourself read access, or move them away"),
        (listing(no_text), "names must be UTF-8", "rename them"),
    )
    return [f"{root}: {what}: {names}; {remedy}" for names, what, remedy in kinds if names]
