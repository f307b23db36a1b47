"""Which maps an image gets, by name or by base name: never those of another."""

import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saliency_entropy.data.folder_tree import folder_tree
from saliency_entropy.data.human_maps.join import join_by_base_name
from saliency_entropy.data.human_maps.loading import load_human_map
from saliency_entropy.data.images import load_image
from saliency_entropy.data.listed_files import check_files, file_problems
from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.data.table import Manifest, complete
from saliency_entropy.errors import UserError


def made(root: Path, *names: str) -> Path:
    """Files with a byte each."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def manifest(root: Path, *paths: str, splits: dict[str, str] | None = None) -> Manifest:
    table = pd.DataFrame({"path": paths, "label": "real"})
    table["split"] = [(splits or {}).get(path, "train") for path in paths]
    return complete(Manifest(table, root, "m.csv"))


def written(root: Path, *cells: str) -> Path:
    """A manifest of images 0.png, 1.png, ... with these cells in its column human_map."""
    rows = "".join(f'{number}.png,real,train,"{cell}"\n' for number, cell in enumerate(cells))
    (root / "manifest.csv").write_text("path,label,split,human_map\n" + rows)
    return root / "manifest.csv"


def joined(manifest: Manifest, folders: str | list[str], split: str | None = None) -> list[str]:
    return join_by_base_name(manifest, folders, split).table["human_map"].tolist()


def refusal(manifest: Manifest, folders: str | list[str], split: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        join_by_base_name(manifest, folders, split)
    return str(caught.value)


# By base name.


def test_files_and_folders_of_one_and_of_several_annotators(tmp_path: Path) -> None:
    made(tmp_path, "ann/1/0001.png", "ann/1/0003.jpg", "ann/2/0001.SVG", "ann/2/0002/b.png", "ann/2/0002/a.png")
    images = manifest(tmp_path, "a/0002.jpg", "a/0001.png", "b/0003.png", "b/0004.png")
    assert joined(images, "ann/1") == ["", "ann/1/0001.png", "ann/1/0003.jpg", ""]
    both = join_by_base_name(images, ["ann/2", "/ann/1/"])
    assert both.table["human_map"].tolist() == [
        "ann/2/0002/a.png;ann/2/0002/b.png",
        "ann/2/0001.SVG;ann/1/0001.png",
        "ann/1/0003.jpg",
        "",
    ]
    assert both.map_files(both.table["human_map"][1]) == [tmp_path / "ann/2/0001.SVG", tmp_path / "ann/1/0001.png"]
    assert [problem for problem in file_problems(both) if problem[1] == "human_map"] == []
    assert images.table["human_map"].tolist() == [""] * 4


def test_only_the_images_of_a_split(tmp_path: Path) -> None:
    made(tmp_path, "maps/1.png", "maps/2.png")
    images = manifest(tmp_path, "1.png", "2.png", "val/1.png", splits={"2.png": "val", "val/1.png": "val"})
    assert joined(images, "maps", "train") == ["maps/1.png", "", ""]
    assert "images share a base name, so a map's image is unclear: '1.png'; 'val/1.png'" in refusal(images, "maps")


def test_what_is_passed_over_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "maps/1.png", "maps/9.png", "maps/1.txt", "maps/._1.png", "maps/8/x.png", "maps/2/x.png",
         "maps/2/notes.txt", "maps/3/notes.txt")  # fmt: skip
    with caplog.at_level(logging.INFO):
        assert joined(manifest(tmp_path, "1.png", "2.png", "3.png"), "maps") == ["maps/1.png", "maps/2/x.png", ""]
    assert "data.source.maps=maps: 2 images have maps there; passed over: " in caplog.text
    assert "4 files that are no image or SVG" in caplog.text
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "data.source.maps=maps: 2 images have maps there; 2 maps there are not used" in warning
    assert warning.endswith("theirs: '8/x.png'; '9.png'")


@pytest.mark.parametrize(
    "name", ["Ä.png", "A\u0308.png", "ä.jpg.png", "a\u0308.JPG.jpeg", "Ä.PNG/1.png", "a\u0308/1.png", "ä.jpg.svg"]
)
def test_other_spellings_of_a_base_name(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, f"maps/{name}", "maps/.png/notes.txt")
    for image in ("ä.jpg", "a\u0308.jpg", "Ä.jpg.png"):
        assert joined(manifest(tmp_path, image, "b.jpg"), "maps") == [f"maps/{name}", ""]
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("names", "images", "cells", "unused"),
    [
        (("a.png", "A.png"), ("a.png",), ["maps/a.png"], "1 maps there are not used"),
        (("A.png", "b.png"), ("a.png", "a.JPG.png", "b.png"), ["", "", "maps/b.png"], "1 maps there are not used"),
        (("A.png", "a.jpg.png", "b.png"), ("a.png", "b.png"), ["", "maps/b.png"], "2 maps there are not used"),
        (("a.png", "A.png"), ("a.png", "A.jpg"), ["maps/a.png", "maps/A.png"], ""),
    ],
)
def test_other_spellings_that_may_be_of_another(
    tmp_path: Path, names: list[str], images: list[str], cells: list[str], unused: str, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, *(f"maps/{name}" for name in names))
    assert joined(manifest(tmp_path, *images), "maps") == cells
    assert unused in caplog.text
    assert bool(unused) == bool(caplog.text)


def test_a_map_of_another_split_is_no_other_spelling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "maps/A.png", "maps/b.png", "maps/c.jpg.png")
    splits = {"A.png": "val", "C.png": "test"}
    images = manifest(tmp_path, "a.png", "A.png", "b.png", "c.png", "C.png", splits=splits)
    assert joined(images, "maps", "train") == ["", "", "maps/b.png", "", ""]
    assert "2 maps there are not used" in caplog.text


def test_training_images_with_fewer_maps_than_other_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, *(f"maps/{number}.png" for number in (1, 2, 3, 5)))
    images = manifest(tmp_path, *(f"{number}.png" for number in range(1, 6)), splits={"5.png": "val"})
    joined(images, "maps")
    assert "of the training images, 75.0 % have a map, of split val 100.0 %; see that" in caplog.text
    caplog.clear()
    made(tmp_path, "maps/4.png")
    joined(images, "maps")
    joined(manifest(tmp_path, "1.png", "val/9.png", splits={"val/9.png": "val"}), "maps")
    assert "have a map, of split" not in caplog.text


def test_base_names_that_are_shared_name_all_who_share_them(tmp_path: Path) -> None:
    made(tmp_path, "maps/1.png", "maps/1.jpg", "maps/2.png", "maps/2/a.png", "maps/3.png", "maps/4.png")
    images = manifest(tmp_path, "1.png", "2.png", "a/3.png", "b/3.jpg", "5.png", "a/5.png")
    assert refusal(images, "maps").splitlines() == [
        f"{tmp_path}/maps: maps share a base name, so a map's image is unclear: '1.jpg'; '1.png'; '2/a.png'; '2.png'; "
        "rename or remove all but one of each",
        "data.source.maps=[maps]: images share a base name, so a map's image is unclear: 'a/3.png'; 'b/3.jpg'; rename "
        "one of each, or name the maps in a manifest's column human_map",
    ]


def test_base_names_are_shared_within_a_folder_only(tmp_path: Path) -> None:
    made(tmp_path, "a/1.png", "b/1.png", "b/1.txt")
    assert joined(manifest(tmp_path, "1.png"), ["a", "b"]) == ["a/1.png;b/1.png"]


@pytest.mark.parametrize("name", ["a.b.png", "a", "xa.png"])
def test_a_name_that_is_like_another(tmp_path: Path, name: str) -> None:
    made(tmp_path, f"maps/{name}", "maps/other.png")
    message = refusal(manifest(tmp_path, "a.png", "c.png"), "maps")
    assert message == f"no file in {tmp_path}/maps has the base name of any of the images (such as 'a')"


def test_each_folder_must_have_a_map(tmp_path: Path) -> None:
    made(tmp_path, "a/1.png", "b/9.png", "c/8.png")
    message = refusal(manifest(tmp_path, "1.png"), ["a", "b", "c"])
    assert [line.split(" has ")[0] for line in message.splitlines()] == [
        f"no file in {tmp_path}/b",
        f"no file in {tmp_path}/c",
    ]


@pytest.mark.parametrize("folder", ["", "/", ".", "..", "a/../../b", "a/..", "C:/maps", "\\\\server\\maps", "a\x00b",
                                    "a\nb", "a;b"])  # fmt: skip
def test_folders_that_lead_elsewhere(tmp_path: Path, folder: str) -> None:
    made(tmp_path, "a/1.png")
    message = refusal(manifest(tmp_path, "1.png"), ["a", folder])
    assert message.startswith(f"data.source.maps={folder!r} must be a folder relative to the data root")


def test_folders_that_are_none(tmp_path: Path) -> None:
    root = made(tmp_path / "root", "a/1.png", "file")
    made(tmp_path, "outside/1.png")
    (root / "link").symlink_to(tmp_path / "outside")
    images = manifest(root, "1.png")
    assert f"data.source.maps=none is no folder in {root}; name the folder of" in refusal(images, "none")
    assert f"data.source.maps=file is no folder in {root}" in refusal(images, "file")
    assert f"data.source.maps=link is a link out of the data root {root}" in refusal(images, "link")
    assert refusal(images, ["a", "a/"]) == "data.source.maps names a twice; give each folder once"


def test_links_out_of_the_root_below_a_folder_of_maps(tmp_path: Path) -> None:
    root = made(tmp_path / "root", "1.png", "2.png", "maps/9.png")
    made(tmp_path, "outside/1.png")
    (root / "maps/1.png").symlink_to(tmp_path / "outside/1.png")
    (root / "maps/2").symlink_to(tmp_path / "outside")
    assert file_problems(join_by_base_name(manifest(root, "1.png", "2.png"), "maps")) == [
        (0, "human_map", "'maps/1.png', is a link out of the data root"),
        (1, "human_map", "'maps/2/1.png', lies outside the data root"),
    ]


def test_a_name_that_no_cell_can_hold(tmp_path: Path) -> None:
    made(tmp_path, "maps/a;b.png", "maps/c/1;2.png", "maps/d.png")
    os.close(os.open(os.fsencode(tmp_path) + b"/maps/c/\xff.png", os.O_CREAT))
    made(tmp_path, "maps/\udcfe.png")  # of no image: passed over
    message = refusal(manifest(tmp_path, "a;b.png", "c.png", "d.png"), "maps")
    assert message == (
        f"{tmp_path}/maps: names of human maps must be UTF-8 and free of ';', which separates them: 'maps/a;b.png'; "
        "'maps/c/1;2.png'; 'maps/c/\\udcff.png'; rename them"
    )


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "maps/1.png")

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    message = refusal(manifest(tmp_path, "1.png"), "maps")
    assert message == f"{tmp_path}/maps cannot be read (Permission denied); give yourself read access"


# In the readers.


def test_the_manifest_reader_joins_all_splits(tmp_path: Path) -> None:
    made(tmp_path, "maps/1.png", "maps/2.png")
    (tmp_path / "manifest.csv").write_text("path,label,split\na/1.png,real,test\na/2.png,real,val\n")
    manifest = read_manifest(tmp_path / "manifest.csv", maps=["maps"])
    assert manifest.table["human_map"].tolist() == ["maps/1.png", "maps/2.png"]


@pytest.mark.parametrize(("maps", "given"), [("maps", "maps"), (["maps", "b"], "[maps,b]")])
def test_maps_that_are_named_twice(tmp_path: Path, maps: str | list[str], given: str) -> None:
    made(tmp_path, "maps/1.png")
    with pytest.raises(UserError) as caught:
        read_manifest(written(tmp_path, "maps/1.png", "", "maps/1.png"), maps=maps)
    assert str(caught.value) == (
        f"data.source.maps={given}, but column human_map of {tmp_path}/manifest.csv names the maps of 2 images "
        "already; set data.source.maps to null to use those, or take the column away"
    )
    assert read_manifest(written(tmp_path, "", ""), maps="maps").table["human_map"].tolist() == ["", "maps/1.png"]


# Cells of several files, and of folders.


def test_cells_of_several_files_and_folders(tmp_path: Path) -> None:
    made(tmp_path, "m/b.png", "m/a.svg", "m/c.JPG", "m/deep/d.png", "n/x.png", "y.png")
    cells = (" y.png ; n/x.png;", "m/", "m;y.png", "", ";")
    manifest = read_manifest(written(tmp_path, *cells))
    assert manifest.table["human_map"].tolist() == [
        "y.png;n/x.png",
        "m/a.svg;m/b.png;m/c.JPG",
        "m/a.svg;m/b.png;m/c.JPG;y.png",
        "",
        "",
    ]
    assert [problem for problem in file_problems(manifest) if problem[1] == "human_map"] == []


def test_what_a_folder_in_a_cell_holds_besides_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "m/a.png", "m/notes.txt", "m/.hidden.png")
    with caplog.at_level(logging.INFO):
        read_manifest(written(tmp_path, "m"))
    assert "manifest.csv: passed over 2 files that are no image or SVG, in the folders of column" in caplog.text


def test_folders_in_cells_that_are_of_no_use(tmp_path: Path) -> None:
    made(tmp_path, "empty/notes.txt", "odd/a;b.png", "good/a.png")
    with pytest.raises(UserError) as caught:
        read_manifest(written(tmp_path, "empty", "good", "good/a.png;empty/", "odd"))
    first, second = str(caught.value).splitlines()
    assert "column human_map must name maps, or folders that hold maps (.jpg, " in first
    assert "): row 2 has 'empty'; row 4 has 'good/a.png;empty/'; correct it, or empty the cell" in first
    assert "free of ';', which separates them: 'odd/a;b.png'; rename them" in second


def test_a_folder_in_a_cell_that_repeats_a_file(tmp_path: Path) -> None:
    made(tmp_path, "m/a.png")
    with pytest.raises(UserError, match=r"must name each map of an image once: row 2 has 'm/a\.png'; row 2 has 'm/a"):
        read_manifest(written(tmp_path, "m;m/a.png"))


def test_a_folder_outside_the_root(tmp_path: Path) -> None:
    root = made(tmp_path / "root", "0.png")
    made(tmp_path, "outside/a.png")
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match=r"row 2, 'link/a\.png', lies outside the data root"):
        check_files(read_manifest(written(root, "link")))
    with pytest.raises(UserError, match=r"must be relative to the data root.*row 2 has '\.\./outside'"):
        read_manifest(written(root, "../outside"))


# Never the map of another image.


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """40 images; of the image whose every pixel is 5 n, the map has its bright cell in the nth place of 8 x 5."""
    for number in range(40):
        folder = tmp_path / "train" / ("real", "synthetic")[number % 2]
        for path, pixels in (
            (folder / f"{number}.png", np.full((4, 4, 3), 5 * number)),
            (tmp_path / "maps" / f"{number}.png", 255 * np.eye(40)[number].reshape(8, 5)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path


def assert_each_has_its_own_map(manifest: Manifest) -> None:
    check_files(manifest)
    seen = set()
    for path, cell in zip(manifest.table["path"], manifest.table["human_map"], strict=True):
        number = int(load_image(manifest.file(path), 4)[0, 0, 0]) // 5
        np.testing.assert_array_equal(load_human_map(manifest.map_files(cell), (8, 5)).ravel(), np.eye(40)[number])
        seen.add(number)
    assert len(seen) == 40


def renamed(folder: Path, names: dict[str, str]) -> None:
    """Rename files of a folder, each to a name that another may have."""
    for name in names:
        (folder / name).rename(folder / f"{name}.moving")
    for name, new in names.items():
        (folder / f"{name}.moving").rename(folder / new)


@pytest.mark.parametrize("seed", range(3))
def test_maps_of_a_manifest_in_another_order(numbered: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    names = {f"{number}.png": f"{new}.png" for number, new in enumerate(random.permutation(40))}
    assert any(name != new for name, new in names.items())
    renamed(numbered / "maps", names)
    table = folder_tree(numbered, maps="maps").table
    table["human_map"] = [f"maps/{names[Path(path).name]}" for path in table["path"]]
    table.sample(frac=1, random_state=seed).to_csv(numbered / "manifest.csv", index=False)
    assert_each_has_its_own_map(read_manifest(numbered / "manifest.csv"))


@pytest.mark.parametrize("seed", range(3))
def test_maps_by_base_name_in_another_order(numbered: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    new = random.permutation(40)
    for label, rest in (("real", 0), ("synthetic", 1)):
        renamed(numbered / "train" / label, {f"{number}.png": f"{new[number]}.png" for number in range(rest, 40, 2)})
    renamed(numbered / "maps", {f"{number}.png": f"{new[number]}.png" for number in range(40)})
    tree = folder_tree(numbered, maps="maps")
    assert_each_has_its_own_map(tree)
    shuffled = tree.table.drop(columns="human_map").sample(frac=1, random_state=seed)
    shuffled.to_csv(numbered / "manifest.csv", index=False)
    assert_each_has_its_own_map(read_manifest(numbered / "manifest.csv", maps="maps"))
