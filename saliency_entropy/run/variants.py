"""The variants of a study: what varies beside method and seed, and the folder of each.

A sweep over further keys, its axes, gives each combination of their values a study of its own within the study,
``<study>/backbone=resnet50,fraction=0.25/<method>/seed<seed>``, which keeps the values in its ``variant.json``. Light
to import.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from saliency_entropy.errors import UserError, in_one_line
from saliency_entropy.run.whole_files import write_atomically

FILE = "variant.json"
MOST_LETTERS = 120  # of a folder's name, where most disks allow 255
_PLAIN = re.compile(r"[a-z0-9._+-]+")  # no upper case, since some disks do not tell it from lower case
# What is something else than text where it is not in quotes.
_NO_TEXT = re.compile(r"true|false|null|[+-]?(nan|inf|infinity|[\d_.]+(e[+-]?\d+)?)")


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Key -> the shortest end of it that no other of the keys has, in the order of the keys.

    ``data.human_maps.fraction`` is ``fraction``; ``data.seed``, which is not the seed of the run, stays as it is.
    """
    ends = {key: [key, *(key[at + 1 :] for at, letter in enumerate(key) if letter in "./")] for key in sorted(keys)}
    taken = [end for own in ends.values() for end in own] + ["method", "seed"]
    return {
        key: next((end for end in reversed(own) if taken.count(end) == 1 and end[0].isalnum()), key)
        for key, own in ends.items()
    }


def variant_name(values: Mapping[str, Any]) -> str:
    """The name of the folder of a variant, such as ``backbone=resnet50,fraction=0.25``.

    The order of the keys, and how a number is written, do not matter. A value that is no simple one, such as a list or
    a path, is shown as far as it can be; then ``@`` and a checksum tell it from others.

    Args:
        values: full key, such as ``data.human_maps.fraction`` -> value, as JSON knows them. At least one.
    """
    texts = {key: _text(values[key]) for key in sorted(values)}
    name = ",".join(f"{short}={texts[key]}" for key, short in short_keys(texts).items())
    if all(map(_is_plain, values, values.values())) and name[0].isalnum() and len(name) <= MOST_LETTERS:
        return name
    exact = json.dumps([(key, type(values[key]) is str, text) for key, text in texts.items()])
    readable = re.sub(r"[^A-Za-z0-9._=,+-]+", "-", name).strip("-._+=,")
    return f"{readable[: MOST_LETTERS - 9]}@{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 and 1 decide the same
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _is_plain(key: str, value: Any) -> bool:
    """Whether a key and its value can be read off a name that has them as they are."""
    text = _text(value)
    if not _PLAIN.fullmatch(key) or not _PLAIN.fullmatch(text):
        return False
    return not isinstance(value, str) or not _NO_TEXT.fullmatch(text)


def variant_folders(study: Path) -> list[Path]:
    """The folders of a study's variants, numbers in their order; empty if nothing varies beside method and seed."""
    found = {path.parent: read_variant(path.parent) or {} for path in study.glob(f"*/{FILE}")}
    return sorted(found, key=lambda folder: ([_order(value) for _, value in sorted(found[folder].items())], folder))


def _order(value: Any) -> tuple[int, float, str]:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, _text(value))


def read_variant(folder: Path) -> dict[str, Any] | None:
    """Full key -> value of the variant that a folder holds; None if it holds none.

    Raises:
        UserError: its file cannot be read.
    """
    path = folder / FILE
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({in_one_line(error)}); {_remedy(folder)}") from None
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path} is not a table of keys and values; {_remedy(folder)}")
    return values


def _remedy(folder: Path) -> str:
    return f"delete it, and give the command that trained {folder.name} again"


def write_variant(folder: Path, values: Mapping[str, Any]) -> None:
    """Keep the values of a variant in its folder; whoever writes them writes the same."""
    if not (folder / FILE).exists():
        write_atomically(folder / FILE, json.dumps(dict(sorted(values.items())), indent=2) + "\n")
