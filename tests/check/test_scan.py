"""What a scan finds: facts worked out from the bytes and pixels by other means, and every kind of fault and oddity."""

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFilter

from saliency_entropy.check import scan as module
from saliency_entropy.check.scan import ImageScan, MapScan, scan_images, scan_maps
from saliency_entropy.data.images import decode
from saliency_entropy.data.table import Manifest
from saliency_entropy.errors import UserError


def manifest_of(root: Path, paths: list[str], maps: list[str] | None = None) -> Manifest:
    columns = {"path": paths, "label": "real", "split": "train", "generator": "", "source": ""}
    return Manifest(pd.DataFrame({**columns, "human_map": maps or ""}), root, "manifest.csv")


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def saved(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def scanned(path: Path) -> pd.Series:
    """The facts of one image."""
    return scan_images(manifest_of(path.parent, [path.name]), 1).facts.loc[0]


def mapped(root: Path, cell: str, image: str = "a.png", grid: int = 2) -> pd.Series:
    return maps_of(manifest_of(root, [image], [cell]), (grid, grid), workers=1).facts.loc[0]


def maps_of(manifest: Manifest, *options: object, **named: object) -> MapScan:
    return scan_maps(manifest, scan_images(manifest, 1), *options, **named)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_header(width: int, height: int, depth: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_facts_of_a_png_by_other_means(tmp_path: Path) -> None:
    pixels = noise(40, 24)
    path = saved(tmp_path / "a.png", pixels)
    facts = scanned(path)
    assert facts["problem"] == ""
    assert facts["bytes"] == path.stat().st_size
    assert (facts["format"], facts["mode"], facts["width"], facts["height"]) == ("PNG", "RGB", 24, 40)
    assert (facts["quantization"], facts["orientation"], facts["unusual"]) == ("", 1, "")
    assert facts["content"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts["pixels"] == hashlib.sha256(b"24x40 " + pixels.tobytes()).hexdigest()
    assert f"{facts['phash']:016x}" == str(imagehash.phash(Image.fromarray(pixels)))
    np.testing.assert_allclose(facts[["red", "green", "blue"]].astype(float), pixels.mean(axis=(0, 1)), rtol=1e-6)


def test_thumbnail_of_a_picture_in_blocks(tmp_path: Path) -> None:
    # Bilinear, scale 4: eight samples about the centre, the weights 1, 3, 5, 7, 7, 5, 3, 1 of 32, so that two of eight
    # come from each neighbour: (1 + 3) / 32 = 1/8. At the edge the outer neighbour is missing: 24/28 and 4/28.
    column = np.zeros(48, np.uint8)
    column[4:8] = 224
    path = saved(tmp_path / "a.png", np.repeat(np.repeat(column[None, :, None], 48, axis=0), 3, axis=2))
    thumbnails = scan_images(manifest_of(tmp_path, [path.name]), 1).thumbnails
    assert thumbnails.shape == (1, 12, 12, 3)
    expected = np.zeros(12)
    expected[:3] = 224 * 4 / 28, 224 * 24 / 32, 224 * 4 / 32
    np.testing.assert_array_equal(thumbnails[0, :, :, 1], np.tile(expected, (12, 1)))


def test_means_and_hash_of_a_large_picture(tmp_path: Path) -> None:
    picture = Image.fromarray(noise(12, 12)).resize((384, 256), Image.Resampling.BICUBIC)
    facts = scanned(saved(tmp_path / "a.png", picture))
    np.testing.assert_allclose(
        facts[["red", "green", "blue"]].astype(float), np.asarray(picture).mean(axis=(0, 1)), atol=0.1
    )
    whole = int(str(imagehash.phash(picture)), 16)
    assert bin(whole ^ int(facts["phash"])).count("1") <= 2


def test_jpegs_of_one_table_share_its_digest(tmp_path: Path) -> None:
    names = {"a": 90, "b": 90, "c": 60}
    for seed, (name, quality) in enumerate(names.items()):
        saved(tmp_path / f"{name}.jpg", noise(16, 16, seed=seed), quality=quality)
    of = scan_images(manifest_of(tmp_path, [f"{name}.jpg" for name in names]), 1).facts["quantization"]
    assert of[0] == of[1] != of[2]
    assert of.str.fullmatch("[0-9a-f]{12}").all()


def test_one_picture_in_two_files(tmp_path: Path) -> None:
    pixels = noise(16, 20)
    saved(tmp_path / "a.png", pixels)
    saved(tmp_path / "b.bmp", pixels)
    exif = Image.Exif()
    exif[0x0112] = 8  # "rotate 90 degrees counter-clockwise to view"
    saved(tmp_path / "c.png", np.ascontiguousarray(np.rot90(pixels, -1)), exif=exif)
    facts = scan_images(manifest_of(tmp_path, ["a.png", "b.bmp", "c.png"]), 1).facts
    assert facts["pixels"].nunique() == 1
    assert facts["content"].nunique() == 3
    assert facts["phash"].nunique() == 1
    assert facts["unusual"].tolist() == ["", "", "EXIF-rotated"]
    assert facts[["width", "height"]].to_numpy().tolist() == [[20, 16], [20, 16], [16, 20]]
    assert facts["orientation"].tolist() == [1, 1, 8]


def test_pictures_of_the_same_bytes_but_another_shape_differ(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", np.zeros((8, 4, 3), np.uint8))
    saved(tmp_path / "b.png", np.zeros((4, 8, 3), np.uint8))
    assert scan_images(manifest_of(tmp_path, ["a.png", "b.png"]), 1).facts["pixels"].nunique() == 2


def cmyk() -> Image.Image:
    return Image.merge("CMYK", [Image.fromarray(noise(8, 8, 1))] * 4)


def mpo(path: Path) -> None:
    saved(path, noise(16, 16), format="MPO", save_all=True, append_images=[Image.fromarray(noise(16, 16, seed=1))])


@pytest.mark.parametrize(
    ("name", "write", "words", "mode"),
    [
        ("a.jpg", lambda path: saved(path, cmyk()), "CMYK", "CMYK"),
        ("a.png", lambda path: saved(path, Image.fromarray(noise(8, 8)).quantize(16)), "palette", "P"),
        ("a.png", lambda path: saved(path, noise(8, 8, 4)), "alpha", "RGBA"),
        ("a.png", lambda path: saved(path, noise(8, 8), transparency=(1, 2, 3)), "alpha", "RGB"),
        ("a.png", lambda path: saved(path, noise(8, 8, 1)), "grey", "L"),
        ("a.png", lambda path: saved(path, Image.fromarray(noise(8, 8, 1)).convert("LA")), "alpha;grey", "LA"),
        ("a.jpg", mpo, "several pictures", "RGB"),
        ("a.webp", lambda path: saved(path, noise(8, 8)), "", "RGB"),
    ],
)
def test_readable_but_unusual(
    tmp_path: Path, name: str, write: Callable[[Path], object], words: str, mode: str
) -> None:
    write(tmp_path / name)
    facts = scanned(tmp_path / name)
    assert (facts["problem"], facts["unusual"], facts["mode"]) == ("", words, mode)
    assert facts["format"] == {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[Path(name).suffix]
    pixels = np.asarray(decode(tmp_path / name, "RGB"))  # as it is trained on
    assert (
        facts["pixels"]
        == hashlib.sha256(f"{pixels.shape[1]}x{pixels.shape[0]} ".encode() + pixels.tobytes()).hexdigest()
    )


def test_an_orientation_that_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 0
    facts = scanned(saved(tmp_path / "a.jpg", noise(8, 8), exif=exif))
    assert (facts["orientation"], facts["unusual"]) == (1, "")


def animated(path: Path) -> None:
    saved(path, noise(16, 16), save_all=True, append_images=[Image.fromarray(noise(16, 16, seed=1))])


def truncated(path: Path) -> None:
    content = saved(path, noise(64, 64)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def ends_in_zeros(path: Path) -> None:
    """As a copy that was broken off leaves a file of the full size; the decoder alone makes the missing part grey."""
    content = saved(path, noise(64, 64), quality=95).read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))


@pytest.mark.parametrize(
    ("name", "write", "problem"),
    [
        ("a.png", lambda path: None, "a.png does not exist; copy it again, or leave it out"),
        ("a.png", lambda path: path.mkdir(), "a.png cannot be read (Is a directory); try again, or copy it again"),
        ("a.png", lambda path: path.write_bytes(b""), "a.png is empty (0 bytes); copy it again, or leave it out"),
        ("a.jpg", truncated, "a.jpg is truncated or damaged"),
        ("a.png", truncated, "a.png is truncated or damaged"),
        ("a.jpg", ends_in_zeros, "a.jpg is truncated or damaged (its end is missing); copy it again"),
        ("a.jpg", lambda path: path.write_text("<html>404</html>"), "a.jpg is not an image in a known format"),
        ("a.jpg", lambda path: saved(path, noise(8, 8), format="PNG"), "a.jpg holds a PNG image under the extension"),
        ("a.jpg", lambda path: saved(path, noise(8, 8), format="GIF"), "a.jpg is not an image in a known format"),
        ("a.png", lambda path: saved(path, noise(8, 8, 1).astype(np.uint16)), "a.png has more than 8 bits per channel"),
        ("a.png", lambda path: path.write_bytes(png_of_header(4, 4, 16)), "a.png has more than 8 bits per channel"),
        ("a.png", animated, "a.png is animated (2 frames)"),
        ("a.webp", animated, "a.webp is animated (2 frames)"),
        ("a.png", lambda path: path.write_bytes(png_of_header(8001, 8000)), "a.png has 8001 x 8000 pixels, more than"),
        ("a.png", lambda path: path.write_bytes(png_of_header(30_000, 30_000)), "a.png has too many pixels, more than"),
    ],
)
def test_a_problem_is_said_and_raises_nothing(
    tmp_path: Path, name: str, write: Callable[[Path], object], problem: str
) -> None:
    saved(tmp_path / "good.png", noise(8, 8))
    write(tmp_path / name)
    scan = scan_images(manifest_of(tmp_path, [name, "good.png"]), 1)
    assert scan.facts["problem"][0].startswith(f"{tmp_path}/{problem}")
    assert scan.facts["problem"][1] == ""
    assert not scan.thumbnails[0].any()
    assert scan.thumbnails[1].any()
    assert np.isnan(scan.facts["red"][0])
    if (tmp_path / name).is_file():
        content = (tmp_path / name).read_bytes()
        assert (scan.facts["bytes"][0], scan.facts["content"][0]) == (len(content), hashlib.sha256(content).hexdigest())


def test_of_a_truncated_image_the_header_is_known(tmp_path: Path) -> None:
    truncated(tmp_path / "a.jpg")
    facts = scanned(tmp_path / "a.jpg")
    assert (facts["format"], facts["width"], facts["height"], facts["pixels"]) == ("JPEG", 64, 64, "")


def test_a_file_too_large_to_hold_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", noise(64, 64))
    whole = scanned(path)
    monkeypatch.setattr("saliency_entropy.check.scan.LARGEST_BYTES", 1000)
    pd.testing.assert_series_equal(scanned(path), whole)


def test_every_file_is_read_once(tmp_path: Path) -> None:
    reads = []

    class Counted:
        suffix = ".png"

        def __init__(self, path: Path) -> None:
            self.path = path

        def open(self, mode: str) -> io.BufferedReader:
            reads.append(self.path.name)
            return self.path.open(mode)

        def __str__(self) -> str:
            return str(self.path)

    class Archive:
        def file(self, name: str) -> Counted:
            return Counted(tmp_path / name)

    names = [f"{number}.png" for number in range(3)]
    for name in names:
        saved(tmp_path / name, noise(16, 16))
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:300])
    manifest = manifest_of(tmp_path, names)
    images = scan_images(Manifest(manifest.table, tmp_path, "shards", archive=Archive()), 1)
    assert reads == names
    assert (images.facts["problem"] == "").tolist() == [True, True, False]
    reads.clear()
    for name in ("m.png", "n.png"):
        saved(tmp_path / name, quarters(0, 9, 99, 255))
    table = manifest_of(tmp_path, names, ["", "m.png;n.png", "n.png"]).table
    scan_maps(Manifest(table, tmp_path, "shards", archive=Archive()), images, (2, 2), workers=1)
    assert reads == ["m.png", "n.png", "n.png"]


def same(first: ImageScan | MapScan, second: ImageScan | MapScan) -> None:
    pd.testing.assert_frame_equal(first.facts, second.facts)


def test_processes_change_nothing_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(150)]
    for seed, name in enumerate(names):
        if seed != 70:
            saved(tmp_path / name, noise(16, 16, seed=seed))
    manifest = manifest_of(tmp_path, names)
    some = Manifest(manifest.table[10:], tmp_path, "manifest.csv")
    counts: list[int] = []
    alone, together = scan_images(some, 1), scan_images(some, 2, counts.append)
    same(alone, together)
    np.testing.assert_array_equal(alone.thumbnails, together.thumbnails)
    assert sum(counts) == 140
    assert len(counts) > 1
    assert alone.facts.index.tolist() == list(range(10, 150))
    assert alone.facts.index[alone.facts["problem"] != ""].tolist() == [70]
    assert alone.facts["content"][149] == hashlib.sha256((tmp_path / "149.png").read_bytes()).hexdigest()


def test_a_process_that_is_killed(tmp_path: Path) -> None:
    parent = os.getpid()

    class Archive:
        def file(self, name: str) -> Path:
            if os.getpid() != parent:
                os._exit(9)
            return tmp_path / name

    manifest = manifest_of(tmp_path, [f"{number}.png" for number in range(150)])
    with pytest.raises(UserError, match=r"was killed \(exit code 9\).*; set workers to a smaller number"):
        scan_images(Manifest(manifest.table, tmp_path, "shards", archive=Archive()), 2)


def test_threads_where_no_process_may_be_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.png" for number in range(150)]
    for seed, name in enumerate(names):
        saved(tmp_path / name, noise(16, 16, seed=seed))
    manifest = manifest_of(tmp_path, names)
    alone = scan_images(manifest, 1)
    monkeypatch.setattr(module, "may_fork", lambda: False)
    monkeypatch.setattr(module, "map_in_processes", None)
    same(alone, scan_images(manifest, 2))


def test_no_image_and_no_map(tmp_path: Path) -> None:
    assert scan_images(manifest_of(tmp_path, [])).facts.empty
    saved(tmp_path / "a.png", noise(8, 8))
    scan = maps_of(manifest_of(tmp_path, ["a.png"]), (3, 5))
    assert scan.facts.empty
    assert scan.maps.shape == (0, 3, 5)


# Human maps.


def quarters(*values: int, size: int = 16) -> np.ndarray:
    """Four grey squares, row by row."""
    return np.kron(np.array(values, np.uint8).reshape(2, 2), np.ones((size // 2, size // 2), np.uint8))


def test_map_facts_by_hand(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(32, 32))
    saved(tmp_path / "m.png", quarters(0, 26, 25, 255))
    scan = maps_of(manifest_of(tmp_path, ["a.png", "a.png"], ["", "m.png"]), (2, 2), workers=1)
    facts = scan.facts.loc[1]
    assert scan.facts.index.tolist() == [1]
    assert (facts["problem"], facts["unusual"], facts["annotators"]) == ("", "", 1)
    assert facts["covered"] == 0.5
    cells = scan.maps[0].astype(float).ravel()
    assert (cells.min(), cells.max()) == (0.0, 1.0)
    p = cells / cells.sum()
    assert facts["entropy"] == pytest.approx(-sum(x * np.log(x) for x in p if x > 0), abs=1e-5)


def test_map_of_two_equal_cells_has_the_entropy_of_a_coin(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(32, 32))
    half = np.zeros((16, 16), np.uint8)
    half[:, :8] = 200
    saved(tmp_path / "m.png", half)
    assert mapped(tmp_path, "m.png")["entropy"] == pytest.approx(np.log(2), abs=1e-5)


def test_maps_that_cannot_be_used(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(32, 32))
    saved(tmp_path / "flat.png", np.full((8, 8), 9, np.uint8))
    truncated(tmp_path / "cut.png")
    cells = ["gone.png", "flat.png", "cut.png", "flat.png;gone.png"]
    scan = maps_of(manifest_of(tmp_path, ["a.png"] * 4, cells), workers=1)
    for row, words in enumerate(["does not exist", "is a constant map", "is truncated or damaged", "does not exist"]):
        assert words in scan.facts["problem"][row]
    assert scan.facts["annotators"].tolist() == [1, 1, 1, 2]
    assert scan.facts[["entropy", "covered"]].isna().all(axis=None)
    assert not scan.maps.any()


def test_a_map_in_colour_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(16, 16))
    grey = quarters(0, 50, 100, 250)
    saved(tmp_path / "rgb.png", np.stack([grey] * 3, axis=-1))
    saved(tmp_path / "rgb.jpg", np.stack([grey] * 3, axis=-1))
    saved(tmp_path / "heat.png", np.stack([grey, grey[::-1], grey], axis=-1))
    strokes = np.zeros((16, 16, 4), np.uint8)
    strokes[4:8, 4:8] = 255, 0, 0, 240  # red strokes: their opacity counts
    saved(tmp_path / "strokes.png", strokes)
    for name in ("rgb.png", "rgb.jpg", "strokes.png"):
        assert (mapped(tmp_path, name)[["problem", "unusual"]] == "").all()
    facts = mapped(tmp_path, "heat.png")
    assert facts["problem"].startswith(f"{tmp_path}/heat.png is in colour; save the map in grey or")
    assert facts["unusual"] == ""


def disc(size: int = 64, inverted: bool = False) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    marked = (x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.04
    return np.where(marked != inverted, 255, 0).astype(np.uint8)


def test_each_kind_of_implausible_map(tmp_path: Path) -> None:
    """Beside its like that is plausible; also in one layer of two."""
    smooth = Image.fromarray(noise(64, 64)).resize((16, 16), Image.Resampling.BOX).resize((64, 64))
    saved(tmp_path / "a.png", smooth)
    saved(tmp_path / "good.png", disc())
    saved(tmp_path / "inverted.png", np.roll(disc(inverted=True), 9))
    frame = np.full((64, 64), 255, np.uint8)
    frame[3:-3, 3:-3] = 0
    saved(tmp_path / "frame.png", frame)
    saved(tmp_path / "rectangle.png", 255 - frame)
    saved(tmp_path / "grey.jpg", smooth.convert("L").resize((40, 40)))
    kinds = {"good": "", "inverted": "inverted", "frame": "bright border", "rectangle": "full rectangle"}
    assert {name: mapped(tmp_path, f"{name}.png", grid=7)["unusual"] for name in kinds} == kinds
    assert "image itself" in mapped(tmp_path, "grey.jpg")["unusual"].split(";")
    assert mapped(tmp_path, "good.png;inverted.png")["unusual"] == "several annotators;inverted"


def test_a_photograph_given_as_its_own_map_is_named_as_such(tmp_path: Path) -> None:
    photograph = Image.fromarray(noise(8, 8)).resize((64, 64), Image.Resampling.NEAREST)
    saved(tmp_path / "a.png", photograph)
    saved(tmp_path / "b.png", noise(8, 8, seed=1))
    saved(tmp_path / "m.jpg", photograph, quality=90)
    own, other = mapped(tmp_path, "m.jpg"), mapped(tmp_path, "m.jpg", "b.png")
    assert "is in colour" in own["problem"]
    assert "is in colour" in other["problem"]
    assert (own["unusual"], other["unusual"]) == ("image itself", "")


def test_one_map_in_every_row(tmp_path: Path) -> None:
    for number in range(8):
        saved(tmp_path / f"{number}.png", noise(16, 16, seed=number))
        saved(tmp_path / f"m{number}.png", np.roll(disc(), number, axis=1))
    images, own = [f"{number}.png" for number in range(8)], [f"m{number}.png" for number in range(8)]
    assert (maps_of(manifest_of(tmp_path, images, own), workers=1).facts["unusual"] == "").all()
    assert (maps_of(manifest_of(tmp_path, images, ["m0.png"] * 8), workers=1).facts["unusual"] == "same map").all()


def test_heat_maps_are_looked_at_as_they_will_be_decoded(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(64, 64))
    for name, levels in (("m.png", disc()), ("inverted.png", disc(inverted=True))):
        blurred = np.asarray(Image.fromarray(levels).filter(ImageFilter.GaussianBlur(5)))
        saved(tmp_path / name, colormaps["jet"](blurred, bytes=True))
    manifest = manifest_of(tmp_path, ["a.png"] * 2, ["m.png", "inverted.png"])
    facts = maps_of(manifest, workers=1, colormap="jet").facts
    assert facts["problem"].tolist() == ["", ""]
    assert facts["unusual"].tolist() == ["", "inverted"]


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [(200, 100, ""), (50, 25, ""), (203, 101, ""), (102, 50, "other aspect"), (100, 200, "other aspect")],
)
def test_aspects_within_one_percent_are_the_same(tmp_path: Path, width: int, height: int, words: str) -> None:
    saved(tmp_path / "a.png", noise(100, 200))
    saved(tmp_path / "m.png", noise(height, width, 1))
    assert mapped(tmp_path, "m.png")["unusual"] == words


def test_aspects_are_compared_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(tmp_path / "a.jpg", noise(100, 200), exif=exif)  # 100 x 200 for who looks at it
    saved(tmp_path / "tall.png", noise(200, 100, 1))
    saved(tmp_path / "wide.png", noise(100, 200, 1))
    assert mapped(tmp_path, "tall.png", "a.jpg")["unusual"] == ""
    assert mapped(tmp_path, "wide.png", "a.jpg")["unusual"] == "other aspect"


def test_an_svg_has_the_aspect_of_its_view_box(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(100, 200))
    for name, box in (("same", "0 0 400 200"), ("other", "0 0 300 300")):
        line = '<line x1="50" y1="50" x2="150" y2="100" stroke="#f00" stroke-width="30"/>'
        (tmp_path / f"{name}.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{line}</svg>')
    assert mapped(tmp_path, "same.svg")["unusual"] == ""
    assert mapped(tmp_path, "other.svg")["unusual"] == "other aspect"


def test_of_an_image_that_cannot_be_used_no_aspect_is_compared(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    saved(tmp_path / "m.png", noise(10, 20, 1))
    facts = mapped(tmp_path, "m.png")
    assert (facts["problem"], facts["unusual"]) == ("", "")


@pytest.mark.parametrize(("top", "words"), [(1, "narrow range"), (100, "narrow range"), (240, ""), (255, "")])
def test_a_map_that_uses_few_of_the_levels(tmp_path: Path, top: int, words: str) -> None:
    saved(tmp_path / "a.png", noise(16, 16))
    saved(tmp_path / "m.png", quarters(0, 0, 0, top))
    strokes = np.zeros((16, 16, 4), np.uint8)
    strokes[:8, :8, 3] = top
    saved(tmp_path / "strokes.png", strokes)
    for name in ("m.png", "strokes.png"):
        facts = mapped(tmp_path, name)
        assert (facts["problem"], facts["unusual"], facts["covered"]) == ("", words, 0.25)


def test_several_annotators(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(16, 16))
    saved(tmp_path / "m.png", quarters(0, 0, 0, 255))
    saved(tmp_path / "n.png", quarters(255, 0, 0, 0))
    facts = mapped(tmp_path, "m.png;n.png")
    assert (facts["unusual"], facts["annotators"], facts["covered"]) == ("several annotators", 2, 0.5)


def test_blur_and_binarise_are_those_of_the_training(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(16, 16))
    saved(tmp_path / "m.png", quarters(0, 50, 100, 200))
    manifest = manifest_of(tmp_path, ["a.png"], ["m.png"])
    assert maps_of(manifest, (2, 2), binarise=0.6, workers=1).facts["covered"][0] == 0.25
    page = Image.new("L", (64, 64))
    ImageDraw.Draw(page).rectangle((30, 30, 33, 33), fill=255)
    saved(tmp_path / "m.png", page)
    sharp = maps_of(manifest, (8, 8), workers=1).facts["entropy"][0]
    assert maps_of(manifest, (8, 8), blur=0.1, workers=1).facts["entropy"][0] > sharp + 0.5


def test_processes_change_no_map(tmp_path: Path) -> None:
    saved(tmp_path / "a.png", noise(16, 16))
    names = [f"{number}.png" for number in range(100)]
    for seed, name in enumerate(names):
        saved(tmp_path / name, noise(16, 16, 1, seed))
    manifest = manifest_of(tmp_path, ["a.png"] * 100, names)
    alone, together = maps_of(manifest, workers=1), maps_of(manifest, workers=2)
    same(alone, together)
    np.testing.assert_array_equal(alone.maps, together.maps)
