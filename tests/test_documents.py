"""The documents: their commands run, their links lead somewhere, their messages are the code's, they build unwarned."""

import ast
import inspect
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import pytorch_lightning as pl
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image

from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.run import console
from saliency_entropy.run.folder import flatten, register_resolvers

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")] + sorted(
    path
    for path in (ROOT / "docs").rglob("*")
    if path.suffix in (".md", ".ipynb") and not {"_build", "tutorial"} & {*path.parts}  # what the tutorial wrote
)
# What each command gets so that it is done in a moment. train is planned (plan.py composes every run and looks at its
# data, as training does before it begins); a sweep with -m and a search are trained.
SMALL = {
    "train": ["threads=1", "trainer.max_epochs=1", "trainer.accelerator=cpu", "data.num_workers=0"],
    "data": ["workers=1"],
    "focus": ["num_workers=0", "device=cpu", "threads=1"],
    "evaluate": ["num_workers=0", "device=cpu", "threads=1"],
    "predict": ["device=cpu"],
}
BUILTIN = ["data.source.train=16", "data.source.val=8", "data.source.test=12"]
DATA_OF = {"faces": "faces", "paper": "und_cyborg"}  # experiments that name their data
# The studies of which commands of the documents make reports: parts of those that other commands train.
STUDIES = (
    "experiment=demo seed=0 method=cross_entropy,droid_cyborg",
    "experiment=drawn study=drawn_two seed=0 method=cross_entropy,droid",
    "experiment=controls seed=0 method=cyborg data.human_maps.control=none,shuffled",
    "experiment=controls seed=0 method=cross_entropy data.human_maps.control=none",
    "experiment=dose study=dose_drawn seed=0 loss.terms.entropy_match.target=0.5,2.5 protocol.optimizer.lr=0.01",
    "experiment=annotation study=annotation_drawn seed=0 data.human_maps.fraction=0.25,1.0 method=cyborg "
    "protocol.optimizer.lr=0.01",
    "-m method=droid,fmmmse seed=0 study=two",
    "-m backbone=tiny,efficientnet_lite0 data.human_maps.fraction=0.25,1 method=cyborg seed=0 study=axes",
)


class Block(NamedTuple):
    """A block of code in a document; ``why`` says why it is not run."""

    why: str
    language: str
    text: str


def markdown(document: Path) -> str:
    """Of a notebook, the cells between the code, which test_tutorial.py runs."""
    if document.suffix == ".md":
        return document.read_text()
    cells = json.loads(document.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown") + "\n"


def blocks(document: Path) -> Iterator[Block]:
    fenced = r"^(?:<!-- not run: (.+?) -->\n)?```([^\n]*)\n(.*?)^```$"
    for why, language, text in re.findall(fenced, markdown(document), re.MULTILINE | re.DOTALL):
        yield Block(why, language, text)


def name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def draw(work: Path) -> None:
    """The folders that the documents call DIR (a manifest), UNMAPPED and FACES (one without human_map), TREE, UND and
    LAB, and PATH and face.jpg to be judged."""
    random = np.random.default_rng(0)

    def save(path: str, *size: int) -> None:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, size).astype(np.uint8)).save(work / path)

    rows, original, labels = ["path,label,split,generator"], [], ["file,fake,set,model"]
    mapped = ["path,label,split,generator,human_map"]
    for split in ("train", "val", "test"):
        for number in range(8):
            label, generator = (("real", ""), ("synthetic", "gan"))[number % 2]
            image, mask = f"{split}_{number}.png", f"maps/{split}_{number}.png"
            for folder in ("DIR", "UNMAPPED", "LAB", f"TREE/{split}/{label}/{generator}"):
                save(f"{folder}/{image}", 48, 48, 3)
            if split != "test":
                save(f"DIR/{mask}", 16, 16)
                save(f"UNMAPPED/{mask}", 16, 16)
                save(f"UND/heatmaps/{split}_{number}.png", 16, 16)
                original.append(f"{'train' if split == 'train' else 'test'},{label.capitalize()},/{image}")
            save(f"UND/{image}", 48, 48, 3)
            rows.append(f"{image},{label},{split},{generator}")
            mapped.append(f"{rows[-1]},{'' if split == 'test' else mask}")
            labels.append(f"{image},{number % 2},{split},{generator}")
    tests = {"ffhq": "Real,/test_0.png", "stylegan3": "Synthetic,/test_1.png"}
    (work / "UND/csvs/gan_test_sets").mkdir(parents=True)
    for source, row in tests.items():
        (work / f"UND/csvs/gan_test_sets/{source}.csv").write_text(f"test,{row}\n")
    for file, lines in (
        ("DIR/manifest.csv", mapped),
        ("UNMAPPED/manifest.csv", rows),
        ("LAB/labels.csv", labels),
        ("UND/csvs/original.csv", original),
    ):
        (work / file).write_text("\n".join(lines) + "\n")
    (work / "FACES").symlink_to("UNMAPPED")
    save("PATH/0.png", 48, 48, 3)
    save("face.jpg", 48, 48, 3)


def shortened(command: str, arguments: list[str]) -> list[str]:
    """The arguments with those that make the command small."""
    small = SMALL.get({"plan": "train"}.get(command, command), [])
    if command in ("train", "plan"):
        groups = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        data = groups.get("data", DATA_OF.get(groups.get("experiment", ""), "builtin"))
        small = small + (BUILTIN if data == "builtin" else []) + ([] if "backbone" in groups else ["backbone=tiny"])
    return [*arguments, *small]


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    draw(folder)
    return folder


@pytest.fixture
def given(
    work: Path, monkeypatch: pytest.MonkeyPatch, hydra_ends: Callable[[], AbstractContextManager[None]]
) -> Callable[[str], None]:
    """Give a line of a shell in the folder of :func:`draw`; fails if the command does."""
    monkeypatch.chdir(work)

    def run(line: str) -> None:
        program, *arguments = shlex.split(line, comments=True)
        if program.startswith("PYTHONPATH="):
            monkeypatch.syspath_prepend(work / program.partition("=")[2])
            program, *arguments = arguments
        if program == "make":
            subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)
            return
        if program == "python" and arguments[0].startswith("experiments/"):
            arguments[0] = Path(arguments[0]).stem
        elif program == "python":
            monkeypatch.setattr(sys, "argv", [arguments[0], "drawn.png"])
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
            return
        else:
            assert program == "saliency-entropy", f"{line}: not a program that this test knows; say why it is not run"
        command, *arguments = arguments
        trained = {"-m", "--help", "experiment=weights"} & {*arguments}
        if command == "train" and not trained:
            command = "plan"
        if "--help" not in arguments and not command.startswith("-"):
            arguments = shortened(command, arguments)
        if command == "train" and "--help" not in arguments:
            arguments.append("hydra/launcher=basic")
        if "experiment=weights" in arguments:
            arguments.append("hydra.sweeper.n_trials=2")
        monkeypatch.setattr(sys, "argv", ["saliency-entropy", command, *arguments])
        try:
            with hydra_ends():
                console.main()
        except SystemExit as end:
            if end.code:
                pytest.fail(f"{line}: ended with {end.code}")

    return run


@pytest.fixture(scope="session")
def studies(work: Path) -> None:
    """Train :data:`STUDIES`."""
    for arguments in STUDIES:
        command = [sys.executable, str(ROOT / "experiments" / "train.py"), *shortened("train", arguments.split())]
        subprocess.run(command, cwd=work, check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_command_runs(document: Path, work: Path, studies: None, given: Callable[[str], None]) -> None:
    for block in blocks(document):
        own = re.match(r"(?:# @package _global_\n)?# (mine/\S+)\n", block.text)
        if own:  # a file of the reader's own
            path = work / own[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        if block.why or block.language not in ("sh", "python", "yaml"):
            continue
        if block.language == "sh":
            for line in block.text.splitlines():
                if shlex.split(line, comments=True):
                    given(line)
        elif block.language == "yaml":
            yaml.safe_load(block.text)
        elif not own:
            exec(compile(block.text, name(document), "exec"), {"__name__": "document"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_block_has_a_language_that_is_run_or_shown(document: Path) -> None:
    shown = ("", "text", "csv")
    assert [
        b for b in blocks(document) if b.language not in ("sh", "python", "yaml", *shown) and b.language[0] != "{"
    ] == []


@pytest.mark.parametrize("document", [ROOT / "README.md", ROOT / "docs/guide/data.md"], ids=name)
def test_the_manifest_that_is_shown_is_read(document: Path, tmp_path: Path) -> None:
    manifest = next(block.text for block in blocks(document) if block.text.startswith("path,label"))
    (tmp_path / "manifest.csv").write_text(manifest)
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert set(manifest.table["split"]) == {"train", "val", "test"}
    assert manifest.has_map_files


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def anchors(document: Path) -> set[str]:
    """Those that GitHub and MyST give the headings."""
    headings = re.findall(r"^#+ (.+)$", markdown(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(document)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{name(document)}: {target}"
        assert not anchor or anchor in anchors(found), f"{name(document)}: {target}"


def messages() -> Iterator[str]:
    """Every text in the package, as a regular expression: what is filled in may be anything."""
    for folder in ("saliency_entropy", "hydra_plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = [*ast.walk(ast.parse(path.read_text()))]
            inside = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in nodes:
                parts = node.values if isinstance(node, ast.JoinedStr) else [node] if node not in inside else []
                texts = [getattr(part, "value", None) for part in parts]
                literal = "".join(text for text in texts if isinstance(text, str))
                if " " in literal and len(literal) >= 14:
                    yield "".join(re.escape(text) if isinstance(text, str) else ".*" for text in texts)


def test_every_message_that_is_explained_is_one_of_the_package() -> None:
    known = [re.compile(message) for message in messages()]
    quoted = [b.text.splitlines() for b in blocks(ROOT / "docs/reference/errors.md") if b.language == "text"]
    assert [line for lines in quoted for line in lines if not any(message.match(line) for message in known)] == []


def test_every_command_and_every_group_is_in_the_reference() -> None:
    commands = (ROOT / "docs/reference/commands.md").read_text()
    assert {*re.findall(r"{command} (\w+)", commands)} == {path.stem for path in (ROOT / "experiments").glob("*.py")}
    groups = (ROOT / "docs/reference/configuration.md").read_text()
    folders = {path.parent.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {*re.findall(r"{group} (\S+)", groups)} == folders - {"."}


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", project["version"])
    words = (ROOT / "README.md").read_text().split()
    assert citation["preferred-citation"]["title"] in " ".join(words)


@pytest.mark.slow
def test_the_documents_build_without_a_warning_and_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(package, reason="pip install 'saliency-entropy[docs]'")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", str(ROOT / "docs"), str(tmp_path)]
    built = subprocess.run([*build, "-d", str(tmp_path / ".doctrees")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]
    assert len(pages) > 30
    elsewhere = r"(?:https?:)?//"
    loaded = rf"<(?:script|img|iframe)[^>]+src=\W?{elsewhere}|<link[^>]+href=\W?{elsewhere}|url\(\W?{elsewhere}|@import"
    assert [page.name for page in pages if re.search(loaded, page.read_text())] == []


@pytest.fixture(scope="module")
def keys() -> set[str]:
    """Every key of the configuration, Hydra's part and all options of Lightning's Trainer included."""
    register_resolvers()
    found = set()
    for choices in (
        ["data=faces", "logger=wandb", "hydra/launcher=slurm"],
        ["data=shards", "method=hseb", "hydra/launcher=joblib", "hydra/sweeper=search", "debug=profile"],
    ):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("train", choices, return_hydra_config=True)
        for key in flatten(OmegaConf.to_container(config)):
            parts = key.split(".")
            found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    GlobalHydra.instance().clear()
    return found | {f"trainer.{option}" for option in inspect.signature(pl.Trainer).parameters}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_is_named_in_a_sentence_is_there(document: Path, keys: set[str]) -> None:
    sentences = re.sub(r"^```.*?^```$", "", markdown(document), flags=re.MULTILINE | re.DOTALL)
    code = "\n".join(re.findall(r"`([^`\n]+)`", sentences))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= {*targets}
    files = re.findall(r"\b(?:experiments|tests)/[a-z_]+\.\w+", code)
    assert [file for file in files if not (ROOT / file).exists()] == []
    named = re.findall(r"(?<![\w+.])((?:data|protocol|trainer|backbone|logger|loss|hydra)\.[\w.]+)=", code)
    named += re.findall(r"(?<![\w+./])((?:data|protocol|trainer|backbone|logger|loss)\.[a-z_.]+)$", code, re.MULTILINE)
    assert {key for key in named if key not in keys} == set()
