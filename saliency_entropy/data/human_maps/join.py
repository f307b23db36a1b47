"""The files that are the human maps of an image: those that its row names, or those that have its base name."""

import logging
import os
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from saliency_entropy.cpu.cores import each, thread_count
from saliency_entropy.data.human_maps.loading import MAP_EXTENSIONS
from saliency_entropy.data.table import CONTROL, LEADS_OUT, Manifest, complete, map_names, refuse
from saliency_entropy.errors import UserError, listing

log = logging.getLogger(__name__)

EXAMPLES = 5  # of the maps that are not used, named in the log
FURTHER_EXTENSIONS = re.compile(rf"(?:{'|'.join(map(re.escape, MAP_EXTENSIONS))})+\Z")
UNEVEN = 0.01  # by which the share of the images with a map may be less in training than in another split


def with_human_maps(manifest: Manifest, maps: str | Sequence[str] | None, split: str | None = None) -> Manifest:
    """The manifest with the human maps that it names or, if it names none, with those in folders.

    Args:
        manifest: complete.
        maps: the folders, see :func:`join_by_base_name`; None, if the manifest names the maps, or has no maps.
        split: as in :func:`join_by_base_name`.

    Raises:
        UserError: both are given, a folder in column human_map holds no map, or as :func:`join_by_base_name`.
    """
    if maps is None:
        return _with_folders_expanded(manifest)
    own = (manifest.table["human_map"] != "").sum()
    if own:
        raise UserError(
            f"data.source.maps={_as_given(maps)}, but column human_map of {manifest.origin} names the maps of {own} "
            "images already; set data.source.maps to null to use those, or take the column away"
        )
    return join_by_base_name(manifest, maps, split)


def join_by_base_name(manifest: Manifest, folders: str | Sequence[str], split: str | None = None) -> Manifest:
    """The manifest with the human maps that have the base name of an image.

    The map of ``a/0001.png`` is ``FOLDER/0001.EXT``, EXT that of an image or ``svg``; or it is every such file in
    ``FOLDER/0001/``, one for each annotator. An image may have no map. A name that differs from a base name only in
    case, in its Unicode form (as macOS writes accents) or in a further extension of an image (``0001.jpg.png``) stands
    for it, if there is no other for it and it fits no other.

    A warning in the log names maps that belong to no image, and tells if another split has more maps than the training
    images.

    Args:
        manifest: complete, without human maps.
        folders: relative to the root; of several, each holds the maps of one annotator.
        split: join the images of this split only; of all, if not given.

    Raises:
        UserError: a folder does not exist, lies outside the root or is given twice; no file in it belongs to any
            image; or a base name is not unique where a map is found by it: two images have it, or two files of one
            folder.
    """
    folders = _checked_folders(manifest.root, [folders] if isinstance(folders, str) else folders)
    images = manifest.table["path"] if split is None else manifest.split(split)["path"]
    stems = images.map(base_name)
    what = "training images" if split == "train" else "images"
    # By what the spellings of a base name have in common; of all splits, since a map of another is no map of this.
    spellings: dict[str, set[str]] = defaultdict(set)
    for stem in manifest.table["path"].map(base_name):
        spellings[_any_spelling(stem)].add(stem)
    maps: dict[str, list[str]] = defaultdict(list)
    problems = []
    for folder in folders:
        found, faults = _maps_in(manifest.root, folder, set(stems), spellings, what)
        problems += faults
        for stem, names in found.items():
            maps[stem] += names
    # The map of one image must never train another: a base name that two share says nothing.
    shared = images[stems.duplicated(keep=False) & stems.isin(list(maps))]
    if len(shared):
        problems.append(
            f"data.source.maps={_as_given(folders)}: {what} share a base name, so a map's image is unclear: "
            f"{listing(map(repr, shared), len(shared))}; rename one of each, or name the maps in a manifest's column "
            "human_map"
        )
    refuse(problems)
    table = manifest.table.copy()
    table.loc[images.index, "human_map"] = [";".join(maps.get(stem, ())) for stem in stems]
    share = (table["human_map"] != "").groupby(table["split"]).mean()
    if split is None and share.get("train", 1) < share.max() - UNEVEN:
        log.warning(
            "data.source.maps=%s: of the training images, %.1f %% have a map, of split %s %.1f %%; see that the names "
            "of the others' maps are right",
            _as_given(folders), 100 * share["train"], share.idxmax(), 100 * share.max(),
        )  # fmt: skip
    return complete(replace(manifest, table=table))


def _checked_folders(root: Path, folders: Sequence[str]) -> list[str]:
    """The folders in their shortest spelling; raises UserError if one cannot be used."""
    names = []
    for given in folders:
        name = posixpath.normpath(given.strip("/"))
        if name == "." or re.search(LEADS_OUT, given.strip("/")) or re.search(CONTROL, given) or ";" in given:
            raise UserError(
                f"data.source.maps={given!r} must be a folder relative to the data root, written with / and without "
                ".. and ;"
            )
        folder = root / name
        if not folder.is_dir():
            raise UserError(
                f"data.source.maps={given} is no folder in {root}; name the folder of the human maps, which must lie "
                "in data.root, or null"
            )
        if not folder.resolve().is_relative_to(root.resolve()):
            raise UserError(f"data.source.maps={given} is a link out of the data root {root}; copy the maps into it")
        names.append(name)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"data.source.maps names {' and '.join(twice)} twice; give each folder once")
    return names


def _maps_in(
    root: Path, folder: str, stems: set[str], spellings: Mapping[str, set[str]], what: str
) -> tuple[dict[str, list[str]], list[str]]:
    """The maps in a folder by the base name that they belong to, and what is wrong with it.

    Args:
        root, folder: where they lie.
        stems: the base names that are joined.
        spellings: the base names of all images by what their spellings have in common.
        what: whose base names ``stems`` are, for messages.
    """
    path = root / folder
    found: dict[str, list[list[str]]] = defaultdict(list)
    respelled: dict[str, list[list[str]]] = defaultdict(list)  # under another spelling of the base name
    unused: list[str] = []
    passed_over: Counter[str] = Counter()
    for entry in _entries(path):
        name = f"{folder}/{entry.name}"
        files, stem = [name], base_name(entry.name)
        if is_folder(entry):
            files, others = _map_files(root, name)
            stem = entry.name
            passed_over["files that are no image or SVG"] += others
        elif not _is_map(entry.name):
            files = []
            passed_over["files that are no image or SVG"] += 1
        meant = spellings.get(_any_spelling(stem), set())
        if not files:
            continue
        if stem in stems:
            found[stem].append(files)
        elif len(meant) == 1 and stem not in meant and meant <= stems:
            respelled[min(meant)].append(files)
        else:
            unused += files
    for stem, places in respelled.items():
        if stem in found or len(places) > 1:
            unused += [file for files in places for file in files]
        else:
            found[stem] = places
    if passed_over := +passed_over:
        counts = ", ".join(f"{count} {kind}" for kind, count in passed_over.items())
        log.info("data.source.maps=%s: %d %s have maps there; passed over: %s", folder, len(found), what, counts)
    if unused:
        names = listing((repr(posixpath.relpath(name, folder)) for name in unused[:EXAMPLES]), len(unused))
        log.warning(
            "data.source.maps=%s: %d %s have maps there; %d maps there are not used, since no base name of the %s, or "
            "not only one, is theirs: %s", folder, len(found), what, len(unused), what, names,
        )  # fmt: skip
    problems = []
    if not found:
        example = repr(min(stems)) if stems else "there are none"
        problems.append(f"no file in {path} has the base name of any of the {what} (such as {example})")
    shared = [posixpath.relpath(name, folder) for places in found.values() if len(places) > 1
              for files in places for name in files]  # fmt: skip
    if shared:
        problems.append(
            f"{path}: maps share a base name, so a map's image is unclear: {listing(map(repr, shared), len(shared))}; "
            "rename or remove all but one of each"
        )
    maps = {stem: [name for files in places for name in files] for stem, places in found.items()}
    return maps, problems + _unusable_names(path, [name for names in maps.values() for name in names])


def _with_folders_expanded(manifest: Manifest) -> Manifest:
    """The manifest, each folder in its column human_map replaced by the files in it."""
    cells = manifest.table["human_map"]
    cells = cells[cells != ""]
    # The folders of an archive are not known here; its table must name files.
    if cells.empty or manifest.archive:
        return manifest
    names = sorted({name for cell in cells for name in map_names(cell)})
    are_folders = each(lambda name: os.path.isdir(manifest.root / name), names, thread_count())  # noqa: PTH112
    folders = {name: _map_files(manifest.root, name)
               for name, is_folder in zip(names, are_folders, strict=True) if is_folder}  # fmt: skip
    if not folders:
        return manifest
    problems = []
    empty = cells[cells.map(lambda cell: any(not folders.get(name, ("a file",))[0] for name in map_names(cell)))]
    if len(empty):
        listed = (f"{manifest.where(row)} has {cell!r}" for row, cell in empty.items())
        problems.append(
            f"{manifest.origin}: column human_map must name maps, or folders that hold maps "
            f"({', '.join(MAP_EXTENSIONS)}): {listing(listed, len(empty))}; correct it, or empty the cell"
        )
    problems += _unusable_names(manifest.root, [file for files, _ in folders.values() for file in files])
    refuse(problems)
    others = sum(count for _, count in folders.values())
    if others:
        log.info("%s: passed over %d files that are no image or SVG, in the folders of column human_map",
                 manifest.origin, others)  # fmt: skip
    table = manifest.table.copy()
    table.loc[cells.index, "human_map"] = [
        ";".join(file for name in map_names(cell) for file in (folders[name][0] if name in folders else [name]))
        for cell in cells
    ]
    return complete(replace(manifest, table=table))


def _map_files(root: Path, folder: str) -> tuple[list[str], int]:
    """The maps in a folder, sorted, by their names under the root; and the number of other files."""
    # A link that leads nowhere is kept: it is refused together with all missing files.
    files = [entry.name for entry in _entries(root / folder) if not is_folder(entry)]
    maps = [f"{folder.rstrip('/')}/{name}" for name in files if _is_map(name)]
    return maps, len(files) - len(maps)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted; raises UserError if it may not be read."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); give yourself read access") from None


def _is_map(name: str) -> bool:
    # macOS writes hidden files with an image's extension beside it.
    return name.lower().endswith(MAP_EXTENSIONS) and not name.startswith(".")


def _unusable_names(folder: Path, names: Iterable[str]) -> list[str]:
    wrong = [name for name in names if ";" in name or not is_text(name)]
    if not wrong:
        return []
    shown = listing(map(ascii, wrong), len(wrong))
    return [f"{folder}: names of human maps must be UTF-8 and free of ';', which separates them: {shown}; rename them"]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; ``entry.is_dir`` raises where links go round in a circle."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; Python holds other bytes as lone surrogates, which no table takes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def base_name(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _any_spelling(name: str) -> str:
    """What the spellings of a base name have in common: see :func:`join_by_base_name`."""
    return FURTHER_EXTENSIONS.sub("", unicodedata.normalize("NFC", name).casefold())


def _as_given(folders: str | Sequence[str]) -> str:
    return folders if isinstance(folders, str) else f"[{','.join(folders)}]"
