"""Decoding: the numbers of the transforms, and a clear refusal of everything that is not an image to train on."""

import errno
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from torchvision.transforms import InterpolationMode, Resize

from saliency_entropy.data import images
from saliency_entropy.data.human_maps.loading import load_human_map
from saliency_entropy.data.images import (
    Digested,
    UnreadableFile,
    check_header,
    check_pixels,
    joint_digest,
    load_channels,
    load_image,
)
from saliency_entropy.errors import UserError


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def saved(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(97, 64), (20, 31), (48, 48)])
def test_resize_equals_torchvision_bit_for_bit(tmp_path: Path, height: int, width: int, name: str) -> None:
    pixels = noise(height, width)
    expected = Resize((48, 48), InterpolationMode(name))(Image.fromarray(pixels))
    loaded = load_image(saved(tmp_path / "a.png", pixels), 48, name)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, np.asarray(expected))
    channels = load_channels(tmp_path / "a.png", 48, name)
    assert channels.dtype == np.uint8
    np.testing.assert_array_equal(channels, np.asarray(expected).transpose(2, 0, 1))
    channels[:] = 0  # the caller's own


def test_halving_is_the_triangle_filter_worked_out_by_hand(tmp_path: Path) -> None:
    # Scale 2: a triangle of support 2 about each target centre; the weights of columns 0, 1, 2 are 3/4, 3/4, 1/4 of
    # a pixel for target 0, normalised to 3/7, 3/7, 1/7; rows are alike. 70 * (3, 3, 1) / 7 below.
    row = [70, 0, 0, 0]
    path = saved(tmp_path / "a.png", np.array([row] * 4, dtype=np.uint8))
    np.testing.assert_array_equal(load_image(path, 2)[..., 0], [[30, 0], [30, 0]])
    row = [0, 0, 70, 0]
    path = saved(tmp_path / "b.png", np.array([row] * 4, dtype=np.uint8))
    np.testing.assert_array_equal(load_image(path, 2)[..., 0], [[10, 30], [10, 30]])


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to view"
    pixels = noise(8, 8)
    path = saved(tmp_path / "a.png", pixels, exif=exif)
    np.testing.assert_array_equal(load_image(path, 8), np.rot90(pixels, -1))


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif, **({"lossless": True} if suffix == "webp" else {})}
    path = saved(tmp_path / f"a.{suffix}", noise(8, 8), **options)
    with Image.open(path) as image:
        stored = np.asarray(image.convert("RGB"))
    # What the EXIF standard says of the 0th row and column of the stored image.
    upright = [
        stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1], stored.swapaxes(0, 1), np.rot90(stored, -1),
        stored[::-1, ::-1].swapaxes(0, 1), np.rot90(stored),
    ]  # fmt: skip
    np.testing.assert_array_equal(load_image(path, 8), upright[orientation - 1])


def test_an_orientation_in_xmp(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", noise(8, 8), xmp=XMP)
    with Image.open(path) as image:
        stored = np.asarray(image)
    np.testing.assert_array_equal(load_image(path, 8), np.rot90(stored, -1))


def test_an_orientation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(8, 8)
    content = saved(tmp_path / "a.png", pixels).read_bytes()
    end = content.index(b"IEND") - 4
    behind = chunk(b"eXIf", exif.tobytes()[6:])
    (tmp_path / "a.png").write_bytes(content[:end] + behind + content[end:])
    np.testing.assert_array_equal(load_image(tmp_path / "a.png", 8), np.rot90(pixels, -1))


def test_an_array_can_be_written_to(tmp_path: Path) -> None:
    assert load_image(saved(tmp_path / "a.png", noise(8, 8)), 8).flags.writeable


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    grey = noise(8, 8, 1)
    np.testing.assert_array_equal(load_image(saved(tmp_path / "grey.png", grey), 8), np.stack([grey] * 3, axis=-1))
    palette = Image.fromarray(noise(8, 8)).quantize(16)
    path = saved(tmp_path / "palette.png", palette)
    np.testing.assert_array_equal(load_image(path, 8), np.asarray(palette.convert("RGB")))
    cmyk = Image.merge("CMYK", [Image.fromarray(grey)] * 4)
    assert load_image(saved(tmp_path / "cmyk.jpg", cmyk), 8).shape == (8, 8, 3)


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    pixels = noise(8, 8, 4)
    pixels[..., 3] = 0
    np.testing.assert_array_equal(load_image(saved(tmp_path / "a.png", pixels), 8), pixels[..., :3])


def test_a_jpeg_with_further_pictures_is_its_photograph(tmp_path: Path) -> None:
    first, second = Image.fromarray(noise(16, 16)), Image.fromarray(noise(16, 16, seed=1))
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    alone = saved(tmp_path / "b.jpg", first)
    with Image.open(path) as image:
        assert image.format == "MPO"
    np.testing.assert_array_equal(load_image(path, 16), load_image(alone, 16))


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "jfif", "png", "webp", "bmp"])
def test_every_allowed_format(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a.{suffix}", np.full((8, 8, 3), 100, dtype=np.uint8))
    assert abs(load_image(path, 4).astype(int) - 100).max() <= 2


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [check_header, check_pixels, lambda path: load_human_map([path], (2, 2))])
@pytest.mark.parametrize("name", ["a.png", "a.svg"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name} is not a file, but a pipe, a socket or a device; name a file"):
        read(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match=rf"{name} is not a file, but a pipe, a socket or a device; name a file"):
        read(tmp_path / name)


def test_an_unknown_interpolation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="interpolation is 'cubic'; use one of nearest, box, bilinear"):
        load_image(saved(tmp_path / "a.png", noise(4, 4)), 4, "cubic")


# What must be refused. `decoded` says that the header alone does not show it.


def png(tmp_path: Path, size: int = 64) -> bytes:
    return saved(tmp_path / "whole.png", noise(size, size)).read_bytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of_header(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *chunks, chunk(b"IDAT", b""), chunk(b"IEND", b"")])


def refused(path: Path, message: str, decoded: bool = False) -> None:
    if decoded:
        check_header(path)
    else:
        with pytest.raises(UserError, match=message):
            check_header(path)
    with pytest.raises(UserError, match=message) as caught:
        load_image(path, 8)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    refused(tmp_path / "a.png", r"a\.png is empty \(0 bytes\); copy it again, or leave it out")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_image_is_never_padded(tmp_path: Path, suffix: str, share: float) -> None:
    path = saved(tmp_path / f"a.{suffix}", noise(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"is truncated or damaged|is not an image in a known format"):
        load_image(path, 8)


@pytest.mark.parametrize("behind", [b"", b"x" * 100_000])
def test_a_jpeg_whose_rest_is_zeros_is_never_padded(tmp_path: Path, behind: bytes) -> None:
    """A copy that was broken off, in a file of the full size; some cameras write more behind a whole one."""
    path = saved(tmp_path / "a.jpg", noise(64, 64), quality=95)
    whole = path.read_bytes()
    path.write_bytes(whole + behind)
    check_pixels(path)
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2) + behind)
    refused(path, r"a\.jpg is truncated or damaged \(its end is missing\); copy it again", decoded=True)


def test_limits_that_other_code_sets_are_no_fault_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be read when they are as they should be, so nothing may be remembered of it."""
    path = saved(tmp_path / "a.png", noise(64, 64))
    with monkeypatch.context() as small:
        small.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(UnreadableFile, match=r"PIL\.Image\.MAX_IMAGE_PIXELS was set to 100; leave it as it is"):
            check_header(path)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UnreadableFile, match="LOAD_TRUNCATED_IMAGES was switched on"):
        check_header(path)


def test_padding_switched_on_by_other_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.jpg", noise(64, 64))
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UserError, match="LOAD_TRUNCATED_IMAGES was switched on"):
        load_image(path, 8)


def test_a_damaged_png(tmp_path: Path) -> None:
    content = bytearray(png(tmp_path))
    content[len(content) // 2] ^= 255
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", "is truncated or damaged", decoded=True)


def test_text_under_an_image_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    refused(tmp_path / "a.jpg", "is not an image in a known format")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO", "EPS"])
def test_other_formats_under_an_image_name(tmp_path: Path, kind: str) -> None:
    saved(tmp_path / "a.jpg", noise(16, 16), format=kind)
    refused(tmp_path / "a.jpg", "is not an image in a known format")


def test_a_png_under_a_jpg_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(png(tmp_path))
    refused(tmp_path / "a.jpg", r"holds a PNG image under the extension '\.jpg'; rename it")


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_animated_image(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(noise(16, 16, seed=seed)) for seed in range(3)]
    saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    refused(tmp_path / f"a.{suffix}", r"is animated \(3 frames\)")


def test_sixteen_bits(tmp_path: Path) -> None:
    saved(tmp_path / "grey.png", Image.fromarray(noise(8, 8, 1).astype(np.uint16) * 256))
    refused(tmp_path / "grey.png", r"more than 8 bits per channel \(mode I;16\); convert it to 8 bits")
    # Pillow cannot write 16-bit colours, but reads them, and says that they are 8-bit RGB.
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(range(24)) for _ in range(4)))
    content = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    (tmp_path / "rgb.png").write_bytes(b"".join(content))
    with Image.open(tmp_path / "rgb.png") as image:
        assert image.mode == "RGB"
    refused(tmp_path / "rgb.png", "more than 8 bits per channel")


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (30_000, 30_000)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png_of_header(width, height))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path / "a.png", "more than 64 megapixels; scale it down")


def test_a_png_text_bomb(tmp_path: Path) -> None:
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 100_000_000, 9))
    (tmp_path / "a.png").write_bytes(png_of_header(8, 8, text))
    refused(tmp_path / "a.png", "is truncated or damaged .*too large")


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "a.png", "does not exist; copy it again")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", noise(8, 8))

    def no(*_: object) -> io.BytesIO:  # chmod does not bind root, who may run the tests
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", no)
    refused(path, r"may not be read \(permission denied\)")


@pytest.mark.parametrize("locked", ["file", "folder"])
def test_no_permission_of_a_file_or_its_folder(tmp_path: Path, locked: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = saved(folder / "a.png", noise(8, 8))
    (path if locked == "file" else folder).chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        refused(path, r"may not be read \(permission denied\)")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_not_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = saved(tmp_path / "a.png", noise(64, 64))

    class Failing(io.BytesIO):
        def read(self, size: int = -1) -> bytes:
            if self.tell() > 1000:
                raise OSError(number, os.strerror(number))
            return super().read(size)

    content = path.read_bytes()
    monkeypatch.setattr(Path, "open", lambda *_: Failing(content))
    with pytest.raises(UnreadableFile, match=rf"cannot be read \({os.strerror(number)}\); try again"):
        load_image(path, 8)


def test_what_lies_in_the_content_is_no_failure_to_read(tmp_path: Path) -> None:
    for content in (b"", b"<html>", png(tmp_path)[:2000]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_image(tmp_path / "a.png", 8)
        assert type(caught.value) is UserError
    with pytest.raises(UnreadableFile):
        load_image(tmp_path / "missing.png", 8)


def test_a_digest_is_that_of_the_bytes_alone(tmp_path: Path) -> None:
    def digest(path: Path) -> int:
        file = Digested(path)
        assert joint_digest([file]) == 0  # not read yet
        load_image(file, 8)
        return joint_digest([file])

    path = saved(tmp_path / "a.bmp", noise(8, 8))
    content = path.read_bytes()
    assert digest(path) == (len(content) << 32) + zlib.crc32(content)
    (tmp_path / "b").mkdir()
    other = tmp_path / "b" / "other.bmp"
    other.write_bytes(content)
    os.utime(other, ns=(1, 1))
    assert digest(other) == digest(path)
    status = path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert digest(other) != digest(path)


def test_a_digest_of_several_files_and_of_one_that_was_not_read(tmp_path: Path) -> None:
    files = [Digested(saved(tmp_path / f"{n}.png", noise(8, 8, seed=n))) for n in range(3)]
    for file in files[:2]:
        file.open("rb")
    assert joint_digest(files[:2]) == joint_digest(files[1::-1]) == files[0].digest + files[1].digest
    assert joint_digest(files) == joint_digest([]) == 0


def test_a_file_larger_than_any_image_and_a_pipe_are_not_read(tmp_path: Path, monkeypatch) -> None:
    path = saved(tmp_path / "a.bmp", noise(8, 8))
    monkeypatch.setattr(images, "LARGEST_BYTES", path.stat().st_size)
    load_image(Digested(path), 8)
    monkeypatch.setattr(images, "LARGEST_BYTES", path.stat().st_size - 1)
    with pytest.raises(UserError, match=r"a\.bmp has more than 0 MB; save it anew, or leave it out"):
        load_image(Digested(path), 8)
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UserError, match="is not a file, but a pipe"):
        load_image(Digested(tmp_path / "b.png"), 8)
