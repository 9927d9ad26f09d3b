"""Decoding, and pixels that are kept."""

from __future__ import annotations

import io
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

from policies import IMAGENET, DecodedImages, InputError, PolicyCollate, decode_image, decoded
from policies.decoded import PROBES, _mapped


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth, as photographs are, so that JPEG has something to do."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def tree(tmp_path):
    """train/<class>/*.jpg, of several sizes."""
    for i in range(12):
        folder = tmp_path / "train" / f"class{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(encoded(picture(40 + i, 60 + 2 * i, i)))
    return tmp_path / "train"


@pytest.fixture
def photographs(tree):
    return ImageFolder(tree, loader=decode_image)


class TestDecoding:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_has_pillows_bytes(self, tmp_path, kind, mode):
        data = encoded(picture(33, 47, mode=mode), kind)
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        path = tmp_path / "image"
        path.write_bytes(data)
        for source in (data, path, str(path)):
            found = decode_image(source)
            assert found.dtype == torch.uint8 and found.shape == (3, 33, 47)
            assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted)

    @pytest.mark.parametrize(("kind", "mode"), [
        ("JPEG", "CMYK"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"),
    ])  # fmt: skip
    def test_other_modes_become_colours_as_pillow_makes_them(self, kind, mode):
        data = encoded(picture(20, 30, mode=mode), kind)
        wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), wanted)

    @pytest.mark.parametrize("turn", range(1, 9))
    @pytest.mark.parametrize("kind", ["jpg", "tiff"])
    def test_photographs_are_upright(self, tmp_path, turn, kind):
        """As in proxy tasks, whoever reads the file: else a model trains on other images."""
        exif = Image.Exif()
        exif[0x0112] = turn
        (tmp_path / "class").mkdir()
        path = tmp_path / "class" / f"turned.{kind}"
        picture(40, 64).save(path, exif=exif)
        wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        assert np.array_equal(decode_image(path).permute(1, 2, 0).numpy(), wanted)
        # With simplejpeg, which knows nothing of EXIF data.
        stored = np.array(Image.open(path))
        found = decoded._stored(stored, path.read_bytes()).permute(1, 2, 0)
        assert kind != "jpg" or np.array_equal(found, wanted)
        for loader in (decode_image, default_loader):
            kept, _ = DecodedImages(ImageFolder(tmp_path, loader=loader), 64, progress=False)[0]
            assert np.array_equal(kept.permute(1, 2, 0), wanted), loader

    def test_an_orientation_that_stands_in_xmp_alone_counts_too(self, tmp_path):
        xmp = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
            xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
            xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>
            </rdf:RDF></x:xmpmeta>"""
        path = tmp_path / "turned.jpg"
        picture(40, 64).save(path, xmp=xmp)
        assert b"Exif" not in path.read_bytes()
        wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        assert wanted.shape != np.asarray(Image.open(path)).shape
        stored = np.array(Image.open(path))
        for found in (decoded._stored(stored, path.read_bytes()), decode_image(path)):
            assert np.array_equal(found.permute(1, 2, 0), wanted)

    def test_what_proxy_tasks_do_not_read_is_an_error(self):
        sixteen = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30))
        with pytest.raises(OSError, match="8 bits"):
            decode_image(encoded(sixteen, "PNG"))
        with pytest.raises(OSError, match="JPEG, PNG"):
            decode_image(encoded(picture(20, 30), "GIF"))

    def test_options_of_jpeg(self):
        for options in ({"quality": 30}, {"progressive": True}, {"subsampling": 0}):
            data = encoded(picture(50, 70), **options)
            wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), wanted)

    def test_with_simplejpeg(self, monkeypatch):
        """The same with the other decoder: nothing above tells which one was at work."""
        simplejpeg = pytest.importorskip("simplejpeg")
        used = []
        monkeypatch.setattr(
            simplejpeg, "decode_jpeg",
            lambda data, f=simplejpeg.decode_jpeg: used.append(1) or f(data),
        )  # fmt: skip
        self.test_options_of_jpeg()
        assert len(used) == 3

    @pytest.mark.parametrize("cut", [30, 600])
    def test_broken_files_are_pillows_errors(self, cut):
        data = encoded(picture(60, 80))
        with pytest.raises(OSError):
            decode_image(data[:cut])


class Numbered(Dataset):
    """Images whose pixels are their number; counts how often it is asked."""

    def __init__(self, count: int = 9, target=lambda i: i % 4) -> None:
        self.count, self.target, self.asked = count, target, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        self.asked += 1
        return Image.new("RGB", (30 + index, 20), (index, 2 * index, 3 * index)), self.target(index)


class TestDecodedImages:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("in_folder", [False, True])
    def test_holds_what_decoding_gives(self, photographs, tmp_path, in_folder, workers):
        folder = tmp_path / "small" if in_folder else None
        kept = DecodedImages(photographs, 45, folder, workers=workers, progress=False)
        assert len(kept) == len(photographs) == 12
        shorter = set()
        for (image, label), (given, expected) in zip(kept, photographs, strict=True):
            assert image.dtype == torch.uint8 and label == expected
            shorter.add(min(image.shape[1:]))
            if min(given.shape[1:]) <= 45:
                assert torch.equal(image, given)
            else:
                size = (round(given.shape[2] * 45 / given.shape[1]), 45)
                pil = Image.fromarray(given.permute(1, 2, 0).numpy())
                wanted = np.asarray(pil.resize(size, Image.Resampling.BILINEAR))
                assert np.array_equal(image.permute(1, 2, 0).numpy(), wanted)
        assert shorter == {40, 41, 42, 43, 44, 45}
        assert kept.targets.tolist() == photographs.targets

    def test_grey_images_stay_grey(self):
        grey = [(picture(30, 40, i, "L"), i) for i in range(3)]
        kept = DecodedImages(grey, 20, progress=False)
        assert [image.shape for image, _ in kept] == [(1, 20, 27)] * 3

    def test_memory_is_in_pieces(self, monkeypatch):
        monkeypatch.setattr(decoded, "CHUNK", 4000)  # two images
        kept = DecodedImages(Numbered(), 64, progress=False)
        assert len(kept._chunks) > 3
        assert [int(image[1, 3, 5]) for image, _ in kept] == [2 * i for i in range(9)]
        # What is sent to a worker is the images, and not what was reserved for them.
        assert sum(chunk.nbytes for chunk in kept._chunks) == sum(i.numel() for i, _ in kept)

    def test_a_copy_of_what_is_mapped_is_mapped_too(self, tmp_path, monkeypatch):
        """A spawned worker is sent a copy: of an ImageNet that would be a hundred gigabytes."""
        monkeypatch.chdir(tmp_path)
        images = [(picture(120, 100, i), i) for i in range(30)]
        kept = DecodedImages(images, 100, "kept", progress=False)
        monkeypatch.chdir("/")
        sent = pickle.dumps(kept)
        again = pickle.loads(sent)
        assert len(sent) < 20_000 < kept._chunks[0].nbytes
        assert not again._chunks[0].flags.owndata and torch.equal(again[7][0], kept[7][0])

    def test_a_file_that_is_damaged_is_named(self, tmp_path):
        whole = io.BytesIO()
        picture(40, 40, 0).save(whole, "PNG")
        broken = tmp_path / "broken.png"
        broken.write_bytes(whole.getvalue()[:-40])
        with pytest.raises(OSError, match=r"broken\.png"):
            decode_image(broken)

        class Folder(Numbered):
            def __getitem__(self, index):
                return (decode_image(broken) if index == 7 else super().__getitem__(index)[0]), 0

        with pytest.raises(OSError, match=r"image 7: .*broken\.png"):
            DecodedImages(Folder(), 16, progress=False)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_torchs_generator_is_left_alone(self, photographs, tmp_path, workers):
        """Else a seeded script would train otherwise in its first run than later."""
        before = torch.get_rng_state()
        for folder in (None, tmp_path / "small", tmp_path / "small"):
            DecodedImages(photographs, 45, folder, workers=workers, progress=False)
            assert torch.equal(torch.get_rng_state(), before)

    def test_a_folder_is_decoded_once(self, tmp_path):
        first, second = Numbered(), Numbered()
        DecodedImages(first, 16, tmp_path / "kept", progress=False)
        again = DecodedImages(second, 16, tmp_path / "kept", progress=False)
        assert first.asked >= 9 and second.asked == 3  # only a look whether it is the same
        assert [int(image[2, 0, 0]) for image, _ in again] == [3 * i for i in range(9)]

    def test_processes_that_begin_at_once_have_one_folder(self, tmp_path, monkeypatch):
        """As those of a distributed training: the other was ready first."""
        rename, path = os.rename, tmp_path / "kept"

        def beaten(new, target):
            shutil.copytree(new, target)
            rename(new, target)

        monkeypatch.setattr(os, "rename", beaten)
        kept = DecodedImages(Numbered(), 16, path, progress=False)
        assert [int(image[2, 0, 0]) for image, _ in kept] == [3 * i for i in range(9)]
        assert [*tmp_path.iterdir()] == [path]

    @pytest.mark.parametrize(("dataset", "size"), [
        (Numbered(), 17), (Numbered(10), 16), (Numbered(target=lambda i: i % 4 + 1), 16),
        ([(Image.new("RGB", (30 + i, 20)), i % 4) for i in range(9)], 16),
    ])  # fmt: skip
    def test_a_folder_of_something_else_is_refused(self, tmp_path, dataset, size):
        DecodedImages(Numbered(), 16, tmp_path / "kept", progress=False)
        with pytest.raises(InputError, match="folder: must hold.*delete this one"):
            DecodedImages(dataset, size, tmp_path / "kept", progress=False)

    @pytest.mark.parametrize("spoil", [
        lambda folder: (folder / "facts.json").write_text("{"),
        lambda folder: (folder / "index.npz").unlink(),
        lambda folder: (folder / "pixels").write_bytes(b"short"),
    ])  # fmt: skip
    def test_a_damaged_folder_is_refused(self, tmp_path, spoil):
        DecodedImages(Numbered(), 16, tmp_path / "kept", progress=False)
        spoil(tmp_path / "kept")
        with pytest.raises(InputError, match="folder: must hold"):
            DecodedImages(Numbered(), 16, tmp_path / "kept", progress=False)

    def test_nothing_is_left_of_what_was_not_finished(self, tmp_path):
        class Broken(Numbered):
            def __getitem__(self, index: int):
                if index == 7 and self.asked > 12:  # after the estimate
                    raise OSError("a bad block")
                return super().__getitem__(index)

        with pytest.raises(OSError, match="a bad block"):
            DecodedImages(Broken(), 16, tmp_path / "kept", progress=False)
        assert list(tmp_path.iterdir()) == []

    def test_images_are_safe_from_those_who_write_to_them(self, tmp_path):
        DecodedImages(Numbered(), 16, tmp_path / "kept", progress=False)
        kept = DecodedImages(Numbered(), 16, tmp_path / "kept", progress=False)
        kept[3][0].fill_(99)
        again = DecodedImages(Numbered(), 16, tmp_path / "kept", progress=False)
        assert int(again[3][0][0, 0, 0]) == 3

    def test_estimates_before_it_begins(self, tmp_path, capsys, monkeypatch):
        dataset = Numbered(200)
        need = DecodedImages.estimate(dataset, 64)
        kept = DecodedImages(dataset, 64)
        true = sum(image.numel() for image, _ in kept)
        assert need.bytes == pytest.approx(true, rel=0.05) and need.seconds > 0
        said = capsys.readouterr().err
        assert "200 images of 64 pixels: about 0.00 GB memory" in said and "200/200" in said
        monkeypatch.setattr(decoded, "free_memory", lambda: need.bytes // 2)
        with pytest.raises(InputError, match="size: must be so small.*or a folder"):
            DecodedImages(dataset, 64, progress=False)
        DecodedImages(dataset, 64, tmp_path / "kept", progress=False)

    def test_free_memory_is_a_number_of_this_machine(self):
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        assert whole / 500 < decoded.free_memory() <= whole

    @pytest.mark.parametrize(("dataset", "message"), [
        ([], "dataset: must have images"),
        ([(Image.new("RGB", (8, 8)), "cat")], "dataset: must have numbers as targets"),
        ([(torch.zeros(3, 8, 8), 0)], "images: must be PIL images"),
    ])  # fmt: skip
    def test_errors(self, dataset, message):
        with pytest.raises(InputError, match=message):
            DecodedImages(dataset, 16, progress=False)

    @pytest.mark.long
    @pytest.mark.parametrize("in_folder", [False, True])
    def test_works_in_spawned_workers(self, photographs, tmp_path, in_folder):
        folder = tmp_path / "small" if in_folder else None
        kept = DecodedImages(photographs, 32, folder, progress=False)
        assert torch.equal(pickle.loads(pickle.dumps(kept))[4][0], kept[4][0])
        loader = DataLoader(
            kept, 4, collate_fn=PolicyCollate(IMAGENET, 24), num_workers=1,
            multiprocessing_context="spawn",
        )  # fmt: skip
        shapes = [tuple(batch.shape) for batch, _ in loader]
        assert shapes == [(4, 3, 24, 24)] * 3


def test_mistakes_of_a_data_set_are_told_before_it_is_decoded(tmp_path):
    asked = []

    class Data:
        def __init__(self, target, image=None):
            self.target, self.image = target, picture(20, 20, 1) if image is None else image

        def __len__(self):
            return 500

        def __getitem__(self, index):
            asked.append(index)
            return self.image, self.target

    cut = io.BytesIO()
    picture(200, 200, 1).save(cut, "PNG")
    for data, words in (
        (Data("cat"), "numbers as targets"),
        (Data([1, 2]), "numbers as targets"),
        (Data(np.arange(3)), "numbers as targets"),
        (Data(1, np.zeros((224, 224, 3), np.uint8)), "1 or 3 channels"),
        (Data(1, Image.open(io.BytesIO(cut.getvalue()[:400]))), "image 0: "),
    ):
        asked.clear()
        with pytest.raises((InputError, OSError), match=words):
            DecodedImages(data, 16, tmp_path / "kept", progress=False)
        assert len(asked) <= PROBES and not (tmp_path / "kept").exists()
    with pytest.raises(InputError, match="workers"):
        DecodedImages(Data(1), 16, workers=-1, progress=False)


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_a_damaged_index_is_named(tmp_path, content):
    images = [(picture(20, 20, i), i) for i in range(3)]
    DecodedImages(images, 16, tmp_path / "kept", progress=False)
    index = tmp_path / "kept" / "index.npz"
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match="folder: must hold decoded images"):
        DecodedImages(images, 16, tmp_path / "kept", progress=False)


def test_a_file_larger_than_memory_can_be_mapped(tmp_path):
    """Sparse; the kernel would not set aside as much for copies on writing."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 2
    with open(tmp_path / "pixels", "wb") as file:
        file.truncate(size)
    mapped = _mapped(tmp_path / "pixels")
    assert len(mapped) == size
    mapped[5] = 7
    assert mapped[5] == 7
    with open(tmp_path / "pixels", "rb") as file:
        assert file.read(6) == bytes(6)
