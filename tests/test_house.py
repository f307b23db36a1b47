"""The rooms of the house: where each import of the package may lead."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "saliency_entropy"
# From the ground up: a module imports from its own room and from those above it in this list. A room is a folder;
# modules of the package's root stand alone.
ORDER = (
    "errors", "cpu",
    "functional", "losses", "metrics", "calibration",
    "page", "run", "data",
    "weights", "backbone", "cam", "module", "training", "detector",
    "debugging", "scores", "use", "sweep", "study", "check", "tracking", "annotate",
)  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path) -> Iterator[str]:
    """The modules of the package that one of its files imports, also inside functions."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path} has a relative import"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE.name}."))


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_file_is_in_a_room_of_the_order() -> None:
    assert {room(module) for module in modules()} == set(ORDER)


def test_the_map_of_the_rooms_has_the_same_order() -> None:
    shown = (ROOT / "CONTRIBUTING.md").read_text().split("Each imports only from itself")[1].split("```")[1]
    assert tuple(re.findall(r"^\w+(?=/)|\w+(?=\.py)", shown, re.MULTILINE)) == ORDER


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_one_way(module: str) -> None:
    allowed = set(ORDER[: ORDER.index(room(module)) + 1])
    assert {target for target in imports(modules()[module]) if room(target) not in allowed} == set()


def test_there_is_no_circle() -> None:
    known = modules()
    arrows = {module: {target for target in imports(path) if target in known} for module, path in known.items()}
    while leaves := {module for module, targets in arrows.items() if not targets - {module}}:
        arrows = {module: targets - leaves for module, targets in arrows.items() if module not in leaves}
    assert arrows == {}


def test_the_root_is_the_method() -> None:
    files = list(PACKAGE.glob("*.py"))
    assert len(files) <= 13
    assert sum(len(path.read_text().splitlines()) for path in files) <= 1700


def test_the_plugins_are_shells() -> None:
    for path in (ROOT / "hydra_plugins").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 10, path
