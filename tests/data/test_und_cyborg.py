"""The paper's data set as its owners hand it out: file layout, words, and human maps by base name."""

from pathlib import Path

import pytest
from PIL import Image

from saliency_entropy.data.listed_files import check_files
from saliency_entropy.data.und_cyborg import und_cyborg
from saliency_entropy.errors import UserError

ORIGINAL = """\
train,Real,/train/original_data/0_real/04233d408.png
train,Synthetic,/train/original_data/1_fake/p1_100_fake.png
train,Synthetic,/train/original_data/1_fake/stylegan2_000188.png
test,Real,/val/original_data/0_real/04300d10.jpg
test,Synthetic,/val/original_data/1_fake/SREFI/17.png
"""
FFHQ = "test,Real,/test/0_real/ffhq_aligned/01128.png\ntest,Real,/test/0_real/ffhq_aligned/01129.png\n"
STYLEGAN3 = "test,Synthetic,/test/1_fake/stylegan3/000001.png\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tests = tmp_path / "csvs" / "gan_test_sets"
    tests.mkdir(parents=True)
    (tmp_path / "csvs" / "original.csv").write_text(ORIGINAL)
    (tests / "ffhq.csv").write_text(FFHQ)
    (tests / "stylegan3.csv").write_text(STYLEGAN3)
    for line in (ORIGINAL + FFHQ + STYLEGAN3).split():
        path = tmp_path / line.split(",")[2].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    for stem in ("04233d408", "p1_100_fake"):
        path = tmp_path / "heatmaps" / f"{stem}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").save(path)
    return tmp_path


def test_rows(root: Path) -> None:
    manifest = und_cyborg(root)
    check_files(manifest)
    either = "srefi+stylegan2"
    assert manifest.table.to_numpy().tolist() == [
        ["train/original_data/0_real/04233d408.png", "real", "train", "", "frgc", ""],
        ["train/original_data/1_fake/p1_100_fake.png", "synthetic", "train", either, "", ""],
        ["train/original_data/1_fake/stylegan2_000188.png", "synthetic", "train", "stylegan2", "", ""],
        ["val/original_data/0_real/04300d10.jpg", "real", "val", "", "frgc", ""],
        ["val/original_data/1_fake/SREFI/17.png", "synthetic", "val", "srefi", "", ""],
        ["test/0_real/ffhq_aligned/01128.png", "real", "test", "", "ffhq", ""],
        ["test/0_real/ffhq_aligned/01129.png", "real", "test", "", "ffhq", ""],
        ["test/1_fake/stylegan3/000001.png", "synthetic", "test", "stylegan3", "", ""],
    ]


def test_rows_are_named_by_their_own_file(root: Path) -> None:
    manifest = und_cyborg(root)
    assert manifest.where(0) == "csvs/original.csv row 1"
    assert manifest.where(6) == "csvs/gan_test_sets/ffhq.csv row 2"
    assert manifest.where(7) == "csvs/gan_test_sets/stylegan3.csv row 1"
    (root / "test/0_real/ffhq_aligned/01129.png").unlink()
    with pytest.raises(UserError, match=r"csvs/gan_test_sets/ffhq\.csv row 2, 'test/0_real/ffhq_aligned/01129\.png'"):
        check_files(manifest)


def test_maps_by_base_name_for_training_images_only(root: Path) -> None:
    Image.linear_gradient("L").save(root / "heatmaps" / "04300d10.png")  # of a validation image
    (root / "heatmaps" / "readme.txt").write_text("")
    manifest = und_cyborg(root, maps="/heatmaps/")
    check_files(manifest)
    assert manifest.table["human_map"].tolist() == ["heatmaps/04233d408.jpg", "heatmaps/p1_100_fake.jpg"] + [""] * 6


def test_maps_of_several_annotators(root: Path) -> None:
    Image.linear_gradient("L").save(root / "heatmaps" / "2.png")  # of no image
    for name in ("second/04233d408.png", "second/stylegan2_000188/a.png", "second/stylegan2_000188/b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").save(root / name)
    manifest = und_cyborg(root, maps=["heatmaps", "second"])
    check_files(manifest)
    assert manifest.table["human_map"].tolist() == [
        "heatmaps/04233d408.jpg;second/04233d408.png",
        "heatmaps/p1_100_fake.jpg",
        "second/stylegan2_000188/a.png;second/stylegan2_000188/b.png",
        *[""] * 5,
    ]


def test_csvs_as_a_spreadsheet_saves_them(root: Path) -> None:
    expected = und_cyborg(root).table
    for file in (root / "csvs").rglob("*.csv"):
        text = file.read_text().replace(",", " ; ").replace("; /", ";/").replace("\n", "\r\n")
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert und_cyborg(root).table.equals(expected)


def test_a_test_set_that_is_called_original(root: Path) -> None:
    tests = root / "csvs" / "gan_test_sets"
    (tests / "stylegan3.csv").rename(tests / "original.csv")
    table = und_cyborg(root).table
    assert table.set_index("path").loc["test/1_fake/stylegan3/000001.png", ["split", "generator"]].tolist() == [
        "test",
        "original",
    ]


def test_the_faults_of_all_csvs_at_once(root: Path) -> None:
    original, tests = root / "csvs" / "original.csv", root / "csvs" / "gan_test_sets"
    original.write_text(ORIGINAL + "Train,Fake,/train/../a.png\n")
    (tests / "ffhq.csv").write_text(FFHQ + "train,Real,\n\ntest,Synthetic,/test/0_real/ffhq_aligned/01128.png\n")
    with pytest.raises(UserError) as caught:
        und_cyborg(root)
    mend = "correct it, or copy the file again"
    assert str(caught.value).splitlines() == [
        f"{original}: column split must be train or test: csvs/original.csv row 6 has 'Train' (did you mean train?); "
        f"{mend}",
        f"{original}: column label must be Real or Synthetic: csvs/original.csv row 6 has 'Fake' (did you mean "
        f"Synthetic?); {mend}",
        f"{tests}/ffhq.csv: column split must be test: csvs/gan_test_sets/ffhq.csv row 3 has 'train'; {mend}",
        f"{root}/csvs: column path must name a file: csvs/gan_test_sets/ffhq.csv row 3 has ''; "
        "csvs/gan_test_sets/ffhq.csv row 4 has ''; fill it in, or remove the row",
        f"{root}/csvs: column path must be relative to the data root, written with / and without ..: "
        "csvs/original.csv row 6 has 'train/../a.png'; write / for \\, move the files under the data "
        "root, or set data.root to a "
        "folder above them",
        f"{root}/csvs: column path must not be listed both as real and as synthetic: csvs/gan_test_sets/ffhq.csv row 1 "
        "has 'test/0_real/ffhq_aligned/01128.png'; csvs/gan_test_sets/ffhq.csv row 5 has "
        "'test/0_real/ffhq_aligned/01128.png'; keep the row that is right",
    ]


def test_files_that_are_no_such_csvs_are_named_at_once(root: Path) -> None:
    original, tests = root / "csvs" / "original.csv", root / "csvs" / "gan_test_sets"
    original.write_text("train,/a.png\n")
    (tests / "ffhq.csv").write_bytes(b"test,Real,/\xff.png\n")
    (tests / "stylegan3.csv").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        und_cyborg(root)
    assert str(caught.value).splitlines() == [
        f"{original} has 2 columns, not split,Class,path; copy it again",
        f"{tests}/ffhq.csv is not UTF-8 text: row 1 has 'test,Real,/\\xff.png'; save it as CSV UTF-8",
        f"{tests}/stylegan3.csv is empty; copy it again",
    ]


def test_two_training_images_of_one_base_name(root: Path) -> None:
    row = "train,Real,/train/original_data/0_real/p1_100_fake.png\n"
    (root / "csvs" / "original.csv").write_text(ORIGINAL + row)
    und_cyborg(root)  # harmless without maps
    with pytest.raises(UserError, match=r"training images share a base name.*0_real/p1_100_fake\.png"):
        und_cyborg(root, maps="heatmaps")
    (root / "heatmaps" / "p1_100_fake.jpg").unlink()
    und_cyborg(root, maps="heatmaps")  # and where no map is meant


def test_two_maps_of_one_base_name(root: Path) -> None:
    Image.linear_gradient("L").save(root / "heatmaps" / "04233d408.png")
    with pytest.raises(
        UserError,
        match=r"maps share a base name.*'04233d408\.jpg'; '04233d408\.png'; rename or remove",
    ):
        und_cyborg(root, maps="heatmaps")


def test_map_folders_that_are_of_no_use(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.source\.maps=none is no folder in .*name the folder of the human maps"):
        und_cyborg(root, maps="none")
    (root / "other").mkdir()
    with pytest.raises(
        UserError, match=r"no file in .*other has the base name of any of the training images .*'04233d408'"
    ):
        und_cyborg(root, maps="other")
    with pytest.raises(UserError, match="must be a folder relative to the data root"):
        und_cyborg(root, maps="train/../heatmaps")


def test_missing_root_and_files(root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=\S+/none does not exist"):
        und_cyborg(root / "none")
    for file in (root / "csvs" / "gan_test_sets").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"csvs/gan_test_sets/\*\.csv does not exist; data\.root must be the folder"):
        und_cyborg(root)
    (root / "csvs" / "original.csv").unlink()
    with pytest.raises(UserError, match=r"csvs/original\.csv does not exist; data\.root must be the folder"):
        und_cyborg(root)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("original.csv", "val,Real,/a.png", "column split must be train or test: csvs/original.csv row 6 has 'val'"),
        ("original.csv", "train,real,/a.png", "must be Real or Synthetic: csvs/original.csv row 6 has 'real'"),
        ("gan_test_sets/ffhq.csv", "train,Real,/a.png", "column split must be test: csvs/gan_test_sets/ffhq.csv row 3"),
        ("gan_test_sets/ffhq.csv", "test,Real,/../a.png", "csvs/gan_test_sets/ffhq.csv row 3 has '../a.png'"),
        ("gan_test_sets/ffhq.csv", "test,Real,/test/1_fake/stylegan3/000001.png", "both as real and as synthetic"),
    ],
)
def test_wrong_rows(root: Path, file: str, line: str, message: str) -> None:
    path = root / "csvs" / file
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError) as caught:
        und_cyborg(root)
    assert message in str(caught.value)
