"""Decoding one image, safely and exactly as the paper does.

The paper's transform is a bilinear resize to a square, without crop and without augmentation. Pillow's bilinear
filter averages over the source pixels when it shrinks (what torchvision's ``Resize`` does with a PIL image); a
filter that only interpolates would leave aliases, which a detector of synthetic images can learn.
"""

import errno
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageFile, ImageOps

from saliency_entropy.errors import UserError, in_one_line, named, refuse_pipe

# Given to Image.open, so that no file reaches another of Pillow's decoders, whatever its name.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
EXTENSIONS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP",
    ".dib": "BMP",
}  # fmt: skip
# Far above any face image (1024 x 1024 is one megapixel), far below what exhausts memory: 64 MP is 192 MB of RGB.
LARGEST_PIXELS = 64_000_000
# Samples of more than 8 bits: whether a conversion to 8 bits should clip or scale them cannot be guessed.
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
# What Pillow's exif_transpose reads an orientation from: EXIF and XMP, of a JPEG, a PNG or a WebP.
ORIENTED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
TAIL = 65536  # bytes
LARGEST_BYTES = 8 * LARGEST_PIXELS  # of a file: twice what so many pixels take without compression
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


class UnreadableFile(UserError):
    """The file could not be read: nothing is known of its content, and another attempt may succeed."""


class DataFile(Protocol):
    """A file to be read, such as a ``Path`` or a member of a tar file. Its text names it in messages."""

    @property
    def suffix(self) -> str: ...

    def open(self, mode: str) -> BinaryIO: ...

    def stat(self) -> os.stat_result: ...


class Digested:
    """A :class:`DataFile` that is read whole when it is opened, and digested: what is decoded are the bytes that the
    digest is of. Two files with other bytes have, but for one pair in 10^9, another digest; forgers are not kept out.
    """

    def __init__(self, file: DataFile) -> None:
        self.file = file
        self.digest = 0  # not known

    def __str__(self) -> str:
        return str(self.file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def open(self, mode: str) -> BinaryIO:
        refuse_pipe(self.file)
        with self.file.open(mode) as file:
            if file.seek(0, os.SEEK_END) > LARGEST_BYTES:
                raise UserError(f"{self} has more than {LARGEST_BYTES // 1_000_000} MB; save it anew, or leave it out")
            file.seek(0)
            content = file.read()
        # CRC-32 and the length: cryptographic digests took 2 to 6 % of the time of decoding, this less than 1 %.
        self.digest = zlib.crc32(content) | len(content) % 2**16 << 32 or 1
        return io.BytesIO(content)


def joint_digest(files: Sequence[Digested]) -> int:
    """Of the files of an item, in any order: the sum of their digests; 0 if one is not known."""
    digests = [file.digest for file in files]
    return sum(digests) if all(digests) else 0


def load_image(path: DataFile, size: int, interpolation: str = "bilinear", smallest: int = 1) -> np.ndarray:
    """One image, as an annotator saw it, on a square of ``size`` pixels.

    The EXIF orientation is applied. Grey, palette and CMYK images become RGB; an alpha channel is dropped, not
    composited: no background is invented, and the colours are those that the file stores.

    Args:
        path: a JPEG, PNG, WebP or BMP file.
        size: S, in pixels.
        interpolation: one of :data:`INTERPOLATIONS`; the paper's is ``bilinear``.
        smallest: the pixels that a side of the file's image must have.

    Returns:
        ``(S, S, 3)`` uint8, RGB.

    Raises:
        UserError: the file cannot be read whole, or is not an 8-bit still image.
        UnreadableFile: the file cannot be read, for a reason that does not lie in its content.
    """
    return np.array(_resized(path, size, interpolation, smallest))


def load_channels(path: DataFile, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """:func:`load_image` as ``(3, S, S)``, faster than by transposing its array."""
    bands = _resized(path, size, interpolation).split()
    # A bytearray, since the array must be writable.
    return np.frombuffer(bytearray().join(band.tobytes() for band in bands), np.uint8).reshape(3, size, size)


def _resized(path: DataFile, size: int, interpolation: str, smallest: int = 1) -> Image.Image:
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"interpolation is {interpolation!r}; use one of {', '.join(INTERPOLATIONS)}")
    image = decode(path, "RGB")
    if min(image.size) < smallest:
        found = f"{image.width} x {image.height} pixels"
        raise UserError(f"{path} has {found}, and no face fits into fewer than {smallest} on a side; leave it out")
    return image.resize((size, size), Image.Resampling[interpolation.upper()])


def check_header(path: DataFile) -> None:
    """Check everything about an image file that can be known without decoding its pixels.

    Raises:
        UserError: the file is not a still 8-bit image of an allowed format, size and name.
    """
    with opened(path):
        pass


def check_pixels(path: DataFile) -> None:
    """:func:`check_header`, and decode every pixel; raises UserError as it, or if a pixel cannot be decoded."""
    decode(path, "RGB")


def decode(path: DataFile, mode: str) -> Image.Image:
    """The whole image, upright, in a mode of Pillow; raises UserError as :func:`load_image`."""
    with opened(path) as (image, file):
        return upright(image, file, mode)


def upright(image: Image.Image, file: BinaryIO, mode: str) -> Image.Image:
    """The pixels of an image that is :func:`opened`; to be called in its ``with`` block, for what this raises."""
    # Pillow would look for an orientation, and copy the image twice, even if nothing is to be turned or converted.
    image.load()  # before its information is looked at, some of which a PNG may hold behind the pixels
    if image.format in ("JPEG", "MPO"):
        _require_end(file)
    if not image.info.keys().isdisjoint(ORIENTED):
        ImageOps.exif_transpose(image, in_place=True)
    return image if image.mode == mode else image.convert(mode)


@contextmanager
def opened(path: DataFile) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """The image, its header checked, and its file; whatever Pillow raises meanwhile becomes a UserError."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UnreadableFile(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES was switched on, which pads truncated images with grey; switch it off"
        )
    try:
        refuse_pipe(path)
        with path.open("rb") as file:
            start = file.read(25)
            if not start:
                raise UserError(f"{path} is empty (0 bytes); copy it again, or leave it out")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                _check_header(path, image, start)
                yield image, file
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UnreadableFile(f"{named(path)} does not exist; copy it again, or leave it out") from None
    except PermissionError:
        raise UnreadableFile(f"{path} may not be read (permission denied); give yourself read access") from None
    except Image.UnidentifiedImageError:
        raise UserError(
            f"{path} is not an image in a known format ({', '.join(FORMATS)}); convert it, or leave it out"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        if Image.MAX_IMAGE_PIXELS < LARGEST_PIXELS:
            raise UnreadableFile(
                f"{path}: PIL.Image.MAX_IMAGE_PIXELS was set to {Image.MAX_IMAGE_PIXELS}; leave it as it is"
            ) from None
        raise UserError(_too_large(path)) from None
    # A damaged file makes Pillow's decoders raise almost anything.
    except Exception as error:
        # Pillow's own OSErrors have no number, and a damaged header may send it to a place that no file has (EINVAL).
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise UnreadableFile(f"{path} cannot be read ({error.strerror}); try again, or copy it again") from None
        why = in_one_line(error, None)
        raise UserError(f"{path} is truncated or damaged ({why}); copy it again, or leave it out") from None


def _check_header(path: DataFile, image: Image.Image, start: bytes) -> None:
    # A JPEG that carries further pictures (a preview, a depth map) is MPO to Pillow; its first is the photograph.
    kind = "JPEG" if image.format == "MPO" else image.format
    if EXTENSIONS.get(path.suffix.lower()) != kind:
        raise UserError(
            f"{path} holds a {kind} image under the extension {path.suffix!r}; rename it to what it is, so that an "
            "audit of the file formats can be trusted"
        )
    if image.width * image.height > LARGEST_PIXELS:
        raise UserError(_too_large(path, image.size))
    if kind != "JPEG" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{path} is animated ({image.n_frames} frames); save the frame that you mean as a still image")
    # Pillow opens a PNG of 16-bit colours as 8-bit RGB and cuts the low bits; byte 24 is the header's bit depth.
    if image.mode in DEEP_MODES or (kind == "PNG" and start[24] == 16):
        raise UserError(f"{path} has more than 8 bits per channel (mode {image.mode}); convert it to 8 bits")


def _require_end(file: BinaryIO) -> None:
    """Raises ValueError if a JPEG does not end after its pixels: in a copy that was broken off, the decoder would turn
    the missing part grey. (A file that was cut and then given an end cannot be told from a whole one.)"""
    size = file.seek(0, os.SEEK_END)
    for length in (TAIL, size):  # the tail of most files will do; some hold more behind their pixels
        file.seek(max(0, size - length))
        tail = file.read()
        end, scan = tail.rfind(b"\xff\xd9"), tail.rfind(b"\xff\xda")
        if end > scan:
            return
    raise ValueError("its end is missing")


def _too_large(path: DataFile, size: tuple[int, int] | None = None) -> str:
    what = f"{size[0]} x {size[1]} pixels" if size else "too many pixels"
    return f"{path} has {what}, more than {LARGEST_PIXELS // 1_000_000} megapixels; scale it down, or leave it out"
