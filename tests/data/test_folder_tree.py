"""A data set whose folders say what each image is: what they mean, and what is refused or left out by name."""

import logging
import os
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from PIL import Image

from saliency_entropy.data.folder_tree import folder_tree
from saliency_entropy.data.listed_files import check_files, file_problems
from saliency_entropy.errors import UserError
from saliency_entropy.run.folder import register_resolvers

CONF = Path(__file__).parents[2] / "conf"


def made(root: Path, *names: str) -> Path:
    """Files with a byte each."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return made(tmp_path / "data", "train/real/1.png", "train/synthetic/gan/1.png", "test/real/celeba/1.png")


def refusal(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        folder_tree(root, **options)
    return str(caught.value)


def test_rows_are_sorted_and_say_what_the_folders_say(tmp_path: Path) -> None:
    made(
        tmp_path,
        "val/1_fake/stylegan2/b.PNG",
        "val/1_fake/stylegan2/a.jpg",
        "validation/0_real/x.webp",
        "valid/real/ffhq/part1/deep/x.bmp",
        "train/fake/x.png",
        "test/synthetic/a+b/=cmd().png",
        "test/real/celeba-hq/ 1 .jpeg",
    )
    manifest = folder_tree(tmp_path)
    assert manifest.table.to_numpy().tolist() == [
        ["test/real/celeba-hq/ 1 .jpeg", "real", "test", "", "celeba-hq", ""],
        ["test/synthetic/a+b/=cmd().png", "synthetic", "test", "a+b", "", ""],
        ["train/fake/x.png", "synthetic", "train", "", "", ""],
        ["val/1_fake/stylegan2/a.jpg", "synthetic", "val", "stylegan2", "", ""],
        ["val/1_fake/stylegan2/b.PNG", "synthetic", "val", "stylegan2", "", ""],
        ["valid/real/ffhq/part1/deep/x.bmp", "real", "val", "", "ffhq", ""],
        ["validation/0_real/x.webp", "real", "val", "", "", ""],
    ]
    assert list(manifest.table) == ["path", "label", "split", "generator", "source", "human_map"]
    assert (manifest.root, manifest.origin) == (tmp_path, str(tmp_path))
    assert manifest.where(2) == "image 3"
    check_files(manifest)


def test_what_is_no_image_is_left_out_and_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(root, "readme.txt", "docs/a.TXT", "train/real/Thumbs.db", "train/real/._1.png", "train/.git/x.png", "val/raw",
         "train/real/old.tif")  # fmt: skip
    with caplog.at_level(logging.INFO):
        assert len(folder_tree(root).table) == 3
    assert (
        f"{root}: left out 7 files that are no images: 1 .db; 1 .tif; 2 .txt; 2 hidden; 1 without extension\n"
    ) in caplog.text


def test_nothing_left_out_nothing_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        folder_tree(root)
    assert "left out" not in caplog.text


def test_all_misplaced_images_and_links_are_named_at_once(root: Path, tmp_path: Path) -> None:
    made(root, "a.png", "train/b.png", "trian/real/c.png", "extra/d.png", "extra/deep/er/e.png", "test/genuine/f.png",
         "test/Fake/g.png")  # fmt: skip
    made(tmp_path / "outside", "s.png")
    (root / "train" / "real" / "more").symlink_to(tmp_path / "outside")
    remedy = "rename them, move them out of data.root, or, if they are human maps, name them: data.source.maps=FOLDER"
    assert refusal(root).splitlines() == [
        f"{root}: folders of images below data.root must be named as a split (train, val, test): 'extra' with 2 "
        f"images; 'trian' with 1 image (did you mean train?); {remedy}",
        f"{root}: folders of images below a split must be named as a label (real, synthetic): 'test/Fake' with 1 image "
        f"(did you mean synthetic?); 'test/genuine' with 1 image; {remedy}",
        f"{root}: images must lie in folders split/label, such as train/real: 'a.png'; 'train/b.png'; move them there, "
        "or out of data.root",
        f"{root}: links to folders are not followed: 'train/real/more'; put the folders there themselves",
    ]


def test_twenty_are_shown_and_the_others_counted(root: Path) -> None:
    made(root, *(f"train/{number}.png" for number in range(33)))
    message = refusal(root)
    assert message.count(".png'") == 20
    assert "and 13 more; move them there" in message


def test_links_to_files(root: Path, tmp_path: Path) -> None:
    made(tmp_path, "secret.png")
    (root / "train/real/in.png").symlink_to(root / "test/real/celeba/1.png")
    (root / "train/real/out.png").symlink_to(tmp_path / "secret.png")
    (root / "train/real/nowhere.png").symlink_to(root / "none")
    (root / "train/real/round.png").symlink_to(root / "train/real/round.png")
    assert file_problems(folder_tree(root)) == [
        (3, "path", "'train/real/nowhere.png', does not exist"),
        (4, "path", "'train/real/out.png', is a link out of the data root"),
        (5, "path", "'train/real/round.png', cannot be looked at (Too many levels of symbolic links)"),
    ]
    with pytest.raises(UserError, match=r"image 5, 'train/real/out\.png', is a link out of the data root; image 6"):
        check_files(folder_tree(root))


def test_names_that_no_table_takes(root: Path) -> None:
    os.close(os.open(os.fsencode(root) + b"/train/real/\xff.png", os.O_CREAT))
    (root / "train/real/\udcfe").mkdir()
    made(root, "train/real/\udcfd.txt")  # left out anyway
    assert refusal(root) == f"{root}: names must be UTF-8: 'train/real/\\udcfe'; 'train/real/\\udcff.png'; rename them"


def test_a_line_break_in_a_name(root: Path) -> None:
    made(root, "train/real/a\nb.png")
    message = refusal(root)
    assert "must be free of line breaks and other control characters: image 3 has 'train/real/a\\nb.png'" in message
    assert "\n" not in message


def test_a_folder_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def denied(path: Path) -> object:
        if path == root / "train" / "real":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "folders cannot be read: 'train/real' (Permission denied); give" in refusal(root)


def test_no_root_and_no_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.root=\S+/none does not exist"):
        folder_tree(tmp_path / "none")
    assert "holds no image (.jpg, " in refusal(made(tmp_path, "train/real/a.gif"))


def test_folders_of_maps_are_no_splits_labels_or_generators(root: Path) -> None:
    made(root, "maps/2.png", "train/maps/2.svg", "train/real/2.png", "val/real/3.png", "maps/3/a.png")
    manifest = folder_tree(root, maps=["maps", "/train/maps/"])
    assert manifest.table.set_index("path")["human_map"].to_dict() == {
        "test/real/celeba/1.png": "",
        "train/real/1.png": "",
        "train/real/2.png": "maps/2.png;train/maps/2.svg",
        "train/synthetic/gan/1.png": "",
        "val/real/3.png": "maps/3/a.png",
    }
    assert "'maps' with 2 images" in refusal(root, maps="train/maps")


def test_config(tmp_path: Path) -> None:
    number = 0
    for split in ("train", "val", "test"):
        for label in ("real", "fake"):
            number += 1
            path = tmp_path / split / label / "kind" / f"{number}.png"
            path.parent.mkdir(parents=True)
            Image.linear_gradient("L").save(path)
    (tmp_path / "maps").mkdir()
    Image.linear_gradient("L").save(tmp_path / "maps" / "2.png")
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["data=folder", f"data.root={tmp_path}", f"runs_dir={tmp_path}/runs", "backbone=tiny"]
        assert compose("train", overrides).data.source.maps is None
        cfg = compose("train", [*overrides, "data.source.maps=[maps]"])
    data = instantiate(cfg.data, map_size=(2, 2), _convert_="all")
    data.setup()
    assert data.name == "folder"
    assert data.train_generators == ["kind"]
    assert data.split_table("train")["human_map"].tolist() == ["maps/2.png", ""]


def test_what_is_not_read_is_counted_and_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/real/a.tif", "train/real/b.TIF", "val/notes", "test/.hidden.png"):
        made(root, name)
    manifest = folder_tree(root)
    assert manifest.unread == ((".tif", 2), ("hidden", 1), ("without extension", 1))
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "left out 4 files that are no images: 2 .tif; 1 hidden; 1 without extension" in record.getMessage()
