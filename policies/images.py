"""The bytes of an image file as upright 8-bit pixels: the rules of all who decode.

Bounded and without surprises: formats that are meant (an EPS file named x.jpg is not given to
Ghostscript), no more pixels than `MAX_PIXELS`, large images one at a time.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading

from PIL import Image

from .errors import InputError

# What files are opened as, whatever their names say (a JPEG may be a phone's MPO).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
MAX_PIXELS = 2**26
LARGE_PIXELS = 2**22  # larger ones are decoded one at a time, so that threads do not add up

# Images longer than so many times their width are never scaled as a whole.
ELONGATED = 8

# What becomes of each of Pillow's modes. Transparency is dropped, as torchvision's loader does;
# palettes, CMYK and YCbCr become RGB. Others (16 or 32 bits, LAB) would need a choice of scale.
MODES = {
    **dict.fromkeys(("1", "L", "LA", "La"), "L"),
    **dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"), "RGB"),
}
# EXIF orientation -> what turns the stored pixels upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_LARGE = threading.Lock()


def _after_fork() -> None:
    """Who held the lock is not there in the new process."""
    global _LARGE
    _LARGE = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class Unreadable(OSError):
    """Not an image that can be used; says why in a few words. Of the kind that Pillow raises."""


def decode(data: bytes, resolution: int | None = None) -> Image.Image:
    """The image in a file's bytes, upright, as Pillow's mode L or RGB. Raises Unreadable.

    With a `resolution` its centre square of that side (see `fit`), else the whole of it.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if resolution is not None:
                # JPEG only: decode at a reduced DCT scale, still at least twice the wanted size.
                image.draft("RGB", (2 * resolution, 2 * resolution))
            pixels = image.width * image.height
            if pixels > MAX_PIXELS:
                raise Unreadable(f"{pixels / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}")
            with one_at_a_time(pixels > LARGE_PIXELS):
                whole = upright(image)
                return whole if resolution is None else fit(whole, resolution)
    except Unreadable:
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable(f"not one of {', '.join(FORMATS)}") from None
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise Unreadable(str(error) or type(error).__name__) from error


def upright(image: Image.Image) -> Image.Image:
    """A PIL image turned as its EXIF data says, as mode L or RGB. Raises Unreadable."""
    if image.mode not in MODES:
        if image.mode[0] in "IF":
            raise Unreadable(
                f"not 8 bits a channel (mode {image.mode}); scale it to 8 bits: convert() would "
                "cut its values"
            )
        raise Unreadable(f"neither grey nor RGB (mode {image.mode}); convert it")
    if image.mode in ("La", "RGBa"):  # premultiplied: Pillow converts them by this way alone
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    converted = image.convert(MODES[image.mode])
    turn = orientation(image)  # only now: of a TIFF, Pillow turns the pixels when it loads them
    return converted if turn is None else converted.transpose(turn)


def orientation(image: Image.Image) -> Image.Transpose | None:
    """What turns a PIL image upright; None where it is, or where its EXIF data cannot be read."""
    try:
        return UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF data make Pillow raise nearly anything
        return None


def fit(image: Image.Image, resolution: int) -> Image.Image:
    """Shorter side to `resolution` pixels (bilinear, antialiased), then the centre square."""
    width, height = image.size
    if (width, height) == (resolution, resolution):
        return image
    scale = resolution / min(width, height)
    across, down = max(resolution, round(width * scale)), max(resolution, round(height * scale))
    left, top = (across - resolution) // 2, (down - resolution) // 2
    right, bottom = left + resolution, top + resolution
    bilinear = Image.Resampling.BILINEAR
    if max(across, down) <= ELONGATED * resolution:
        return image.resize((across, down), bilinear).crop((left, top, right, bottom))
    # The same square, computed alone (and rounded a little differently, since Pillow's boxes have
    # single precision): the whole of 1 x 65,000 pixels would take gigabytes at 224.
    box = (left * width / across, top * height / down, right * width / across,
           bottom * height / down)  # fmt: skip
    return image.resize((resolution, resolution), bilinear, box=box)


def one_at_a_time(large: bool) -> contextlib.AbstractContextManager:
    """For whatever takes much memory."""
    return _LARGE if large else contextlib.nullcontext()


def check_mode(image: Image.Image) -> None:
    """InputError unless a PIL image is one of 8 bits a channel, grey or RGB."""
    if image.mode not in ("L", "RGB"):
        raise InputError(
            "images", "a PIL image must have mode L or RGB", image.mode,
            "scale it to 8 bits a channel yourself: convert() would cut its values"
            if image.mode[0] in "IF" else 'convert it: image.convert("RGB")',
        )  # fmt: skip


def free_memory() -> int:
    """Bytes that processes may still take."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
