"""The manifest: what is kept, and that every mistake in it is named with its row and a remedy."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from saliency_entropy.data.manifest import Manifest, broken_images, check_files, read_manifest, refuse_broken
from saliency_entropy.errors import UserError

GOOD = "path,label,split\na.png,real,train\nb.png,synthetic,test\n"


def written(root: Path, text: str, encoding: str = "utf-8") -> Path:
    path = root / "manifest.csv"
    path.write_text(text, encoding=encoding)
    return path


def refusal(root: Path, text: str) -> str:
    """The one sentence with which a manifest is refused."""
    with pytest.raises(UserError) as caught:
        read_manifest(written(root, text))
    message = str(caught.value)
    assert "\n" not in message
    assert str(root) in message
    return message


def image(path: Path, seed: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def test_columns_order_and_text_are_kept(tmp_path: Path) -> None:
    text = "split,novelty,path,label,generator\ntest,=cmd(),b.png,synthetic,NA\ntrain,007,a.png,real,\n"
    manifest = read_manifest(written(tmp_path, text))
    assert list(manifest.table) == ["path", "label", "split", "generator", "source", "human_map", "novelty"]
    assert manifest.table.to_numpy().tolist() == [
        ["b.png", "synthetic", "test", "NA", "", "", "=cmd()"],
        ["a.png", "real", "train", "", "", "", "007"],
    ]
    assert manifest.table.index.tolist() == [0, 1]
    assert manifest.root == tmp_path
    assert manifest.origin == str(tmp_path / "manifest.csv")
    assert manifest.split("train").index.tolist() == [1]
    assert manifest.where(1) == "row 3"


def test_excel_csv(tmp_path: Path) -> None:
    text = GOOD.replace("\n", "\r\n") + "\r\n,,\r\n"  # a byte order mark, Windows line ends, blank lines at the end
    assert read_manifest(written(tmp_path, text, "utf-8-sig")).table["path"].tolist() == ["a.png", "b.png"]


def test_quoted_and_foreign_names(tmp_path: Path) -> None:
    text = 'path,label,split\n"a, ""b"".png",real,train\n顔/é.png,real,val\n'
    assert read_manifest(written(tmp_path, text)).table["path"].tolist() == ['a, "b".png', "顔/é.png"]


def test_parquet_keeps_the_types_of_further_columns(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": ["a.png", "b.png"],
            "label": pd.Categorical(["real", "synthetic"]),
            "split": "train",
            "generator": [None, "progan"],
            "age": [3, 5],
        },
        index=[7, 9],
    )
    table.to_parquet(tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet", tmp_path)
    assert manifest.table["generator"].tolist() == ["", "progan"]
    assert manifest.table["age"].tolist() == [3, 5]
    assert manifest.table.index.tolist() == [0, 1]


def test_missing_root_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.root=\S+/none does not exist; set data\.root to the folder"):
        read_manifest(tmp_path / "none" / "manifest.csv", tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^data\.root=\S+/file is not a folder"):
        read_manifest(tmp_path / "manifest.csv", tmp_path / "file")
    with pytest.raises(UserError, match=r"manifest\.csv does not exist; a data set needs a manifest there"):
        read_manifest(tmp_path / "manifest.csv", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest.csv is empty"),
        (b"\xff\xfe\x00", "manifest.csv is not UTF-8 text: row 1 has '\\xff\\xfe\\x00'; save it as CSV UTF-8"),
        (b"path,label,split\nM\xc3\xbc.png,real,val\nM\xfc.png,real,val\n\xe9,real,val",
         "is not UTF-8 text: row 3 has 'M\\xfc.png,real,val'; row 4 has '\\xe9,real,val'; save it"),
        (b"path,label,split\na.png,real,train,extra\nb.png,real,train\n\nc.png,real,val,m,m\n",
         "cannot be read as a table: row 2 has 4 fields; row 5 has 5 fields, but the first row has 3; put cells that "
         "hold ',' in double quotes"),
        (b'path,label,split\n"a.png,real,train\n', "cannot be read as a table: Error tokenizing data. C error: EOF"),
        (b"\npath,label,split\na.png,real,train\n", "begins with a blank row; remove it"),
        (b"path,label,label,split\na.png,real,real,train\n", "two columns named 'label'; rename one"),
        (b"path,label,split\n", "lists no image; add a row for each"),
    ],
)  # fmt: skip
def test_files_that_are_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_manifest(tmp_path / "manifest.csv")


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"m\.parquet cannot be read as a table"):
        read_manifest(tmp_path / "m.parquet")


def test_missing_columns_are_named_with_those_found(tmp_path: Path) -> None:
    message = refusal(tmp_path, "file,label\na.png,real\n")
    assert "has no column path and no column split; its columns are 'file', 'label'; name the columns" in message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",real,train", "column path must name a file: row 4 has ''; fill it in"),
        ("c.png,fake,train", "column label must be real or synthetic: row 4 has 'fake' (did you mean synthetic?); "
         "correct it"),
        ("c.png,Real,train", "row 4 has 'Real'"),
        ("c.png,real", "column split must be train, val or test: row 4 has ''"),
        ("c.png,real,validation", "row 4 has 'validation'"),
        ("/etc/c.png,real,train", "column path must be relative to the data root, written with / and without ..: "
         "row 4 has '/etc/c.png'; move the files"),
        ("../c.png,real,train", "row 4 has '../c.png'"),
        ("x/../../c.png,real,train", "row 4 has 'x/../../c.png'"),
        ("x/..,real,train", "row 4 has 'x/..'"),
        ("C:/c.png,real,train", "row 4 has 'C:/c.png'"),
        ("x\\c.png,real,train", "row 4 has 'x\\\\c.png'"),
        ("a.png,real,train", "column path must be listed once: row 2 has 'a.png'; row 4 has 'a.png'; remove"),
        ("./a.png,real,test", "column path must be listed once: row 2 has 'a.png'; row 4 has './a.png'"),
        ("a.png,synthetic,train", "column path must not be listed both as real and as synthetic: row 2 has 'a.png'; "
         "row 4 has 'a.png'; keep the row that is right"),
    ],
)  # fmt: skip
def test_wrong_rows(tmp_path: Path, row: str, message: str) -> None:
    assert message in refusal(tmp_path, f"{GOOD}{row}\n")


def test_two_dots_in_a_name_are_no_way_out(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, f"{GOOD}..a/b..png,real,val\n")).table["path"].iloc[-1] == "..a/b..png"


def test_wrong_human_map_path(tmp_path: Path) -> None:
    message = refusal(tmp_path, "path,label,split,human_map\na.png,real,train,../m.png\n")
    assert "column human_map must be relative to the data root" in message
    assert "row 2 has '../m.png'" in message


def test_blank_lines_do_not_shift_the_rows(tmp_path: Path) -> None:
    assert "row 3 has ''" in refusal(tmp_path, "path,label,split\na.png,real,train\n\nb.png,real,val\n")


@pytest.mark.parametrize(
    "name", ["logit_real", "logit_synthetic", "cam_entropy", "cam_human_mse", "cam_human_correlation"]
)
def test_a_column_with_the_name_of_a_score(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, f"path,label,split,{name}\na.png,real,train,3\n")
    assert message.endswith(f"manifest.csv has column {name}, which the score tables would overwrite; rename it")


def test_columns_with_the_names_of_scores(tmp_path: Path) -> None:
    message = refusal(tmp_path, "path,label,split,cam_entropy,row,logit_real\na.png,real,train,3,4,5\n")
    assert message.endswith(
        "has columns logit_real and cam_entropy, which the score tables would overwrite; rename them"
    )
    # A score table has no column row of its own.
    manifest = read_manifest(written(tmp_path, "path,label,split,row\na.png,real,train,4\n"))
    assert manifest.table["row"].tolist() == ["4"]


def test_all_wrong_rows_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    rows = "".join(f"{index}.png,fake,train\n" for index in range(33))
    message = refusal(tmp_path, "path,label,split\n" + rows)
    assert message.count("has 'fake'") == 20
    assert "row 21 has 'fake' (did you mean synthetic?); and 13 more; correct it" in message


# On the disk.


def listed(root: Path, *paths: str, human_map: str = "") -> Manifest:
    rows = "".join(f"{path},real,train,{human_map}\n" for path in paths)
    return read_manifest(written(root, "path,label,split,human_map\n" + rows))


def test_files_that_are_there(tmp_path: Path) -> None:
    image(tmp_path / "x" / "a.png")
    image(tmp_path / "m.png")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    (tmp_path / "b.png").symlink_to(tmp_path / "x" / "a.png")
    check_files(listed(tmp_path, "x/a.png", "y/a.png", "b.png", human_map="m.png"))


def test_missing_empty_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    image(tmp_path / "good.png")
    with pytest.raises(UserError) as caught:
        check_files(listed(tmp_path, "none.png", "empty.png", "good.png", "folder.png"))
    assert (
        f"column path must name an image under {tmp_path}: row 2, 'none.png', does not exist; "
        "row 3, 'empty.png', is empty (0 bytes); row 5, 'folder.png', is not a file; copy the missing files"
    ) in str(caught.value)


def test_missing_map(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"column human_map must name a human map .*row 2, 'maps/a\.png', does not"):
        check_files(listed(tmp_path, "a.png", human_map="maps/a.png"))


def test_links_out_of_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    image(root / "a.png")
    secret = image(tmp_path / "secret" / "s.png")
    (root / "file.png").symlink_to(secret)
    (root / "folder").symlink_to(secret.parent)
    with pytest.raises(UserError) as caught:
        check_files(listed(root, "a.png", "file.png", "folder/s.png"))
    assert "row 3, 'file.png', is a link out of the data root" in str(caught.value)
    assert "row 4, 'folder/s.png', lies outside the data root" in str(caught.value)
    assert "row 2" not in str(caught.value)


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    image(tmp_path / "real" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    check_files(listed(tmp_path / "link", "a.png"))


def test_all_broken_images_and_maps_in_one_message(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png", "map.png"):
        image(tmp_path / name, size=64)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:-5000])
    (tmp_path / "c.png").write_text("no image")
    Image.new("L", (8, 8)).save(tmp_path / "map.png")
    manifest = listed(tmp_path, "b.png", "a.png", "c.png")
    manifest.table.loc[1, "human_map"] = "map.png"
    with pytest.raises(UserError) as caught:
        refuse_broken(manifest, broken_images(manifest, "train", decode=True, grid=(2, 2)))
    message = str(caught.value)
    assert "manifest.csv: 3 files cannot be used: row 2: " in message
    assert re.search(r"row 2: \S+/b\.png is truncated or damaged .*; row 3: \S+/map\.png is a constant map", message)
    assert re.search(r"row 4: \S+/c\.png is not an image in a known format", message)

    ((row, why),) = broken_images(manifest, "train", decode=False, grid=(2, 2), workers=1)
    assert row == 2
    assert "c.png is not an image" in why
    with pytest.raises(UserError, match="1 file cannot be used: row 4"):
        refuse_broken(manifest, [(row, why)])
    assert broken_images(manifest, "val", decode=True, grid=(2, 2)) == []
    refuse_broken(manifest, [])
