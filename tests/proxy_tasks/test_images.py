"""Files as they are: every orientation and mode, nothing that is not meant, and bounds."""

from __future__ import annotations

import io
import os
import resource
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from analysis import example_images
from policies import InputError
from policies.images import FORMATS, MODES, UPRIGHT, Unreadable, decode, fit
from proxy_tasks import images
from proxy_tasks.images import read_bytes, read_square

SQUARE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def stored(orientation: int, form: str = "PNG", size: tuple[int, int] = (24, 24)) -> bytes:
    """SQUARE, as a camera held in that orientation stores it."""
    image = Image.fromarray(SQUARE).resize(size)
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    turned = image if orientation == 1 else image.transpose(UPRIGHT[undo])
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if form == "WEBP" else {}
    return encoded(turned, form, exif=exif, **lossless)


class TestOrientation:
    @pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_all_eight_are_upright(self, orientation, form):
        found = decode(stored(orientation, form, (30, 18)))
        assert found.size == (30, 18)
        assert np.array_equal(found, Image.fromarray(SQUARE).resize((30, 18)))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_jpeg_too_at_a_reduced_scale(self, orientation):
        """A dark left half stays left, whatever the camera did."""
        pixels = np.zeros((400, 640, 3), np.uint8)
        pixels[:, 320:], pixels[:40] = 255, 128
        undo = {6: 8, 8: 6}.get(orientation, orientation)
        image = Image.fromarray(pixels)
        turned = image if orientation == 1 else image.transpose(UPRIGHT[undo])
        exif = Image.Exif()
        exif[0x0112] = orientation
        found = np.asarray(decode(encoded(turned, "JPEG", exif=exif), 40)).astype(int)
        assert found[10:, :18].max() < 20 and found[10:, 22:].min() > 235
        assert abs(found[0] - 128).max() < 30

    @pytest.mark.parametrize("value", [0, 9, 77])
    def test_an_orientation_that_means_nothing_is_none(self, value):
        exif = Image.Exif()
        exif[0x0112] = value
        data = encoded(Image.fromarray(SQUARE), "PNG", exif=exif)
        assert np.array_equal(decode(data), SQUARE)

    def test_damaged_exif_is_no_reason_to_lose_an_image(self):
        data = encoded(Image.fromarray(SQUARE), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffrubbish")
        assert np.array_equal(decode(data), SQUARE)

    def test_pictures_of_reports_are_upright_too(self, tmp_path):
        """One decoder: `augsearch show` and a draw see the same image."""
        (tmp_path / "x.png").write_bytes(stored(6))
        (shown,) = example_images(str(tmp_path), 1)
        assert np.array_equal(shown, SQUARE.transpose(2, 0, 1))


class TestModes:
    @pytest.mark.parametrize(
        ("mode", "form"),
        [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"),
         ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF")],
    )  # fmt: skip
    def test_each_becomes_grey_or_rgb(self, mode, form):
        if mode == "YCbCr" and int(PIL.__version__.split(".")[0]) < 13:
            pytest.skip("Pillow before 13 cannot read the YCbCr files that it writes itself")
        image = Image.fromarray(SQUARE).convert(mode)
        found = decode(encoded(image, form))
        assert found.mode == MODES[mode]
        if form != "JPEG":
            assert np.array_equal(found, image.convert(MODES[mode]))

    def test_transparency_is_dropped_not_blended(self):
        pixels = np.dstack([SQUARE, np.zeros((24, 24), np.uint8)])
        assert np.array_equal(decode(encoded(Image.fromarray(pixels), "PNG")), SQUARE)

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_deep_images_are_refused_with_what_to_do(self, dtype):
        deep = Image.fromarray(np.full((9, 9), 4, dtype))
        with pytest.raises(Unreadable, match=r"not 8 bits a channel \(mode .*scale it to 8 bits"):
            decode(encoded(deep, "TIFF"))


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(owned) (w) file closefile
showpage
"""


class TestFormats:
    @pytest.mark.parametrize(
        "data",
        [
            POSTSCRIPT, b"DDS " + bytes(200), b"BLP2" + bytes(200), b"GIF89a" + bytes(20),
            b"\0\0\0\x1cftypavif" + bytes(60), b"", b"text", b"\xff\xd8\xff", b"II*\0", b"P6 1",
        ],
        ids=["eps", "dds", "blp", "gif", "avif", "empty", "text", "jpeg", "tiff", "ppm"],
    )  # fmt: skip
    def test_what_is_not_meant_is_a_skip(self, data, tmp_path):
        """Under the name of a JPEG; no traceback, and no other program is started."""
        (tmp_path / "x.jpg").write_bytes(data)
        found = read_square(tmp_path / "x.jpg", 8)
        assert found.pixels is None and found.error

    def test_ghostscript_is_never_started(self, monkeypatch):
        def started(*arguments, **options):
            raise AssertionError(f"started {arguments}")

        monkeypatch.setattr(subprocess, "Popen", started)
        with pytest.raises(Unreadable, match="not one of JPEG"):
            decode(POSTSCRIPT)

    @pytest.mark.parametrize("form", FORMATS)
    def test_what_is_meant_is_read_whatever_its_name(self, form, tmp_path):
        (tmp_path / "x.jpg").write_bytes(encoded(Image.fromarray(SQUARE), form))
        assert read_square(tmp_path / "x.jpg", 24).pixels.shape == (24, 24, 3)

    @given(st.binary(max_size=300), st.sampled_from(FORMATS), st.integers(0, 400))
    def test_damaged_files_never_raise(self, noise, form, place):
        data = bytearray(encoded(Image.fromarray(SQUARE), form))
        data[place : place + len(noise)] = noise
        try:
            assert decode(bytes(data), 8).size == (8, 8)
        except Unreadable as error:
            assert str(error)


def png(width: int, height: int) -> bytes:
    """A black PNG of any size, in a few bytes: a bit a pixel."""
    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


class TestBounds:
    def test_thin_images_take_no_memory(self):
        """1 x 65,000 pixels at 224: scaling the whole first takes 4.3 GB."""
        code = (
            "import resource, sys; from policies.images import decode; "
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
            "assert decode(sys.stdin.buffer.read(), 224).size == (224, 224); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        for size in ((1, 65_000), (65_000, 1)):
            grown = subprocess.run(
                [sys.executable, "-c", code], input=png(*size), capture_output=True, check=True
            )
            assert int(grown.stdout) < 50_000  # KiB

    @pytest.mark.parametrize("size", [(9000, 9000), (30_000, 30_000), (65_000, 65_000)])
    @pytest.mark.long
    def test_bombs_are_refused_by_their_size(self, size):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(Unreadable, match="megapixels|decompression bomb"):
            decode(png(*size))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20

    def test_large_jpegs_come_reduced(self):
        """A photograph of 100 megapixels is no bomb: it is decoded at an eighth."""
        data = encoded(Image.new("L", (10_000, 9_000)), "JPEG")
        assert decode(data, 32).size == (32, 32)

    @pytest.mark.long
    def test_files_have_a_limit(self, tmp_path):
        path = tmp_path / "x.jpg"
        with open(path, "wb") as stream:
            stream.truncate(images.MAX_BYTES + 1)
        with pytest.raises(Unreadable, match="more than 268435456 bytes"):
            read_bytes(path)


class TestIrregularFiles:
    def special(self, path, kind):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "folder":
            path.mkdir()
        return path

    @pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
    def test_are_not_opened(self, tmp_path, kind, monkeypatch):
        path = self.special(tmp_path / "x.jpg", kind)
        monkeypatch.setattr(os, "open", None)
        with pytest.raises(Unreadable, match="not an ordinary file"):
            read_bytes(path)

    @pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
    def test_are_no_pictures_for_reports(self, tmp_path, kind):
        self.special(tmp_path / "x.jpg", kind)
        with pytest.raises(InputError, match="must hold at least 1 images"):
            example_images(str(tmp_path), 1)


def scaled_then_cropped(image: Image.Image, resolution: int) -> Image.Image:
    """What `fit` means: the whole is scaled, the square cut out of it."""
    width, height = image.size
    scale = resolution / min(width, height)
    size = (max(resolution, round(width * scale)), max(resolution, round(height * scale)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


class TestFit:
    @given(st.integers(1, 120), st.integers(1, 120), st.integers(8, 40), st.integers(0, 9))
    def test_equals_scaling_the_whole(self, width, height, resolution, seed):
        """To the last bit, and to one grey level where images are very long."""
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        found = np.asarray(fit(Image.fromarray(pixels), resolution)).astype(int)
        expected = np.asarray(scaled_then_cropped(Image.fromarray(pixels), resolution)).astype(int)
        long = max(width, height) > 7 * min(width, height)
        assert abs(found - expected).max() <= long
