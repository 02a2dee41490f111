from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

import interp.inputs.images
from interp.errors import ImageError
from interp.inputs.sample import Sample
from tests.identifiers import without_address


def pixels(sample: Sample) -> np.ndarray:
    image = sample.load()
    assert image.mode == "RGB"
    assert image.size == sample.sizes[0]
    return np.asarray(image)


GREY = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)


def both(image: Image.Image, tmp_path, suffix: str = "png") -> tuple[Sample, Sample]:
    """The image from a file and from memory."""
    file = tmp_path / f"image.{suffix}"
    image.save(file)
    return Sample(file), Sample(image)


def test_grey_and_one_bit(tmp_path):
    for sample in both(Image.fromarray(GREY), tmp_path):
        assert np.array_equal(pixels(sample), np.repeat(GREY[..., None], 3, axis=2))
    for sample in both(Image.fromarray(GREY > 120), tmp_path):
        assert np.array_equal(pixels(sample)[..., 0], np.where(GREY > 120, 255, 0))
    assert np.array_equal(pixels(Sample(GREY)), pixels(Sample(GREY[..., None])))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_is_scaled_by_its_own_range(tmp_path, suffix):
    deep = np.array([[1000, 1500, 2000], [1250, 1750, 1000]], np.uint16)
    for sample in both(Image.fromarray(deep), tmp_path, suffix):
        assert pixels(sample)[..., 0].tolist() == [[0, 128, 255], [64, 191, 0]]


def test_float_and_constant_images(tmp_path):
    for sample in both(Image.fromarray(np.array([[-1.0, 0.0, 1.0]], np.float32)), tmp_path, "tif"):
        assert pixels(sample)[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(Sample(Image.fromarray(np.full((2, 3), 7000, np.uint16)))).max() == 0
    with pytest.raises(ImageError, match=r"image 0 \(PIL\): .*NaN"):
        Sample(Image.fromarray(np.array([[np.nan, 1.0]], np.float32))).load()


def test_transparency_is_laid_over_black(tmp_path):
    rgba = np.full((2, 3, 4), 200, np.uint8)
    rgba[0, 0, 3], rgba[0, 1, 3], rgba[0, 2, 3] = 0, 51, 255
    for sample in (*both(Image.fromarray(rgba), tmp_path), Sample(rgba)):
        assert pixels(sample)[0, :, 0].tolist() == [0, 40, 200]
    for sample in both(Image.fromarray(rgba).convert("LA"), tmp_path):
        assert pixels(sample)[0, :, 0].tolist() == [0, 40, 200]


def test_palettes(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for sample in both(image, tmp_path):
        assert pixels(sample)[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    image.info["transparency"] = 1
    for sample in both(image, tmp_path):
        assert pixels(sample)[0].tolist() == [[10, 20, 30], [0, 0, 0], [70, 80, 90]]


def test_cmyk_and_the_first_frame_of_an_animation(tmp_path):
    colour = Image.new("RGB", (3, 2), (255, 0, 0))
    for sample in both(colour.convert("CMYK"), tmp_path, "tif"):
        assert pixels(sample)[0, 0].tolist() == [255, 0, 0]
    file = tmp_path / "frames.gif"
    colour.save(file, save_all=True, append_images=[Image.new("RGB", (3, 2), (0, 0, 255))])
    assert pixels(Sample(file))[0, 0].tolist() == [255, 0, 0]


# EXIF orientation → how numpy turns the stored pixels upright (TIFF 6.0, tag 274).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_rotation(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"turned.{suffix}"
    Image.fromarray(GREY).save(file, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with open(file, "rb") as opened:
        samples = Sample(file), Sample(Image.open(opened))
    for sample in samples:
        assert np.array_equal(pixels(sample)[..., 0], UPRIGHT[orientation](GREY))
        assert sample.sizes[0] == UPRIGHT[orientation](GREY).shape[::-1]


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "late.png"
    Image.fromarray(GREY).save(file, exif=exif)
    data = file.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    chunk, rest = data[start:end], data[:start] + data[end:]
    file.write_bytes(rest[:-12] + chunk + rest[-12:])  # before IEND
    assert np.array_equal(pixels(Sample(file))[..., 0], np.rot90(GREY, -1))


def test_missing_and_unreadable_files(tmp_path):
    missing, text, folder = tmp_path / "missing.png", tmp_path / "text.png", tmp_path / "folder.png"
    text.write_text("not an image")
    folder.mkdir()
    for read in (lambda s: s.sizes, lambda s: s.load()):
        with pytest.raises(
            ImageError, match=r"missing.png' does not exist. Check the path; URLs are not fetched"
        ):
            read(Sample(missing))
        with pytest.raises(
            ImageError, match=r"text.png' cannot be read as an image \(UnidentifiedImageError"
        ):
            read(Sample(text))
        with pytest.raises(ImageError, match=r"folder.png' is a folder, not a regular file"):
            read(Sample(folder))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about broken metadata
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif", "bmp"])
def test_truncated_and_corrupt_files_name_themselves(tmp_path, suffix):
    rng = np.random.default_rng(0)
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(whole)
    data = whole.read_bytes()
    file = tmp_path / f"broken.{suffix}"
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match="broken"):
        Sample(file).load()
    for _ in range(25):  # anything may still decode; nothing but an ImageError may come out
        spoiled = bytearray(data)
        for at in rng.integers(0, min(len(data), 200), 8):
            spoiled[at] = rng.integers(256)
        file.write_bytes(spoiled)
        with suppress(ImageError):
            Sample(file).load()


def bomb(width: int, height: int) -> bytes:
    """A PNG header that promises width × height pixels."""
    chunk = lambda kind, body: (  # noqa: E731
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [20_000, 14_000])  # refused by Pillow itself; by our own limit
def test_decompression_bombs_are_refused_from_the_header(tmp_path, side):
    file = tmp_path / "bomb.png"
    file.write_bytes(bomb(side, side))
    for read in (lambda s: s.sizes, lambda s: s.load()):
        with pytest.raises(ImageError, match=r"bomb.png' is .*Crop or"):
            read(Sample(file))


def test_large_but_lawful_images_do_not_warn(tmp_path, recwarn):
    file = tmp_path / "large.png"
    file.write_bytes(bomb(10_000, 10_000))  # over Pillow's warning, under its error
    assert Sample(file).sizes == ((10_000, 10_000),)
    assert not recwarn.list


def test_max_pixels_counts_for_images_in_memory(monkeypatch):
    monkeypatch.setattr(interp.inputs.images, "MAX_PIXELS", 5)
    for image in (GREY, Image.fromarray(GREY)):
        with pytest.raises(ImageError, match="3×2 = 6 pixels; the limit is 5"):
            Sample(image).load()


@pytest.mark.parametrize(
    "mode", ["P", "1", "LA", "CMYK", "I", "I;16", "F", "YCbCr", "HSV", "LAB", "PA", "RGBa", "RGBX"]
)
def test_every_mode_becomes_rgb(mode):
    rgb = Image.fromarray(np.full((3, 4, 3), 90, np.uint8))
    image = (
        rgb.convert("RGBA").convert(mode) if mode == "RGBa" else rgb.convert("L" if "16" in mode else mode)
    )
    sample = Sample(Image.fromarray(np.full((3, 4), 90, np.uint16)) if "16" in mode else image)
    assert pixels(sample).shape == (3, 4, 3)
    assert sample.fingerprint


@pytest.mark.parametrize("size", [(0, 3), (3, 0), (0, 0)])
def test_images_without_pixels_are_refused(size):
    with pytest.raises(ImageError, match=rf"image 0 \(PIL\) has no pixels: it is {size[0]}×{size[1]}"):
        Sample(Image.new("RGB", size))


def test_an_image_whose_file_is_closed_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    closed = Image.open(tmp_path / "a.png")
    closed.close()
    with pytest.raises(ImageError, match=r"image 0 \(PIL\) cannot be read.*closed image"):
        Sample(closed)
    with open(tmp_path / "a.png", "rb") as file:
        lazy = Image.open(file)
    with pytest.raises(ImageError, match=r"image 0 \(PIL\) cannot be read"):
        Sample(lazy)


def test_a_masked_array_that_hides_pixels_is_refused():
    with pytest.raises(ImageError, match=r"a masked array that hides 3 values. Fill them: array.filled\(0\)"):
        Sample(np.ma.masked_array(GREY, GREY > 100))
    whole = Sample(np.ma.masked_array(GREY, mask=False))
    assert np.array_equal(pixels(whole), pixels(Sample(GREY)))
    assert not isinstance(whole.image, np.ma.MaskedArray)


class Tensor:
    """As much of a torch tensor as a message needs."""

    def permute(self) -> None: ...


@pytest.mark.parametrize(
    ("image", "message"),
    [
        *(
            (GREY.astype(kind), "uint8 array; got")
            for kind in (float, bool, object, np.int64, np.uint16, complex)
        ),
        *(
            (np.zeros(shape, np.uint8), r"uint8 array; got uint8 of shape")
            for shape in ((), (3,), (3, 3, 2), (1, 3, 3, 3))
        ),
        (b"a.png", r"got bytes. Open encoded bytes with PIL.Image.open"),
        (Tensor(), r"got Tensor. Of a tensor .* pass tensor.permute"),
        (["a.png"], r"got list. Several images are images="),
    ],
    ids=without_address,
)
def test_what_is_no_image_is_told_how_to_become_one(unchecked, image, message):
    with pytest.raises(ImageError, match=message):
        Sample(image)


def test_a_loaded_image_is_a_copy_of_the_one_in_memory():
    image = Image.new("RGB", (4, 4), (200, 0, 0))
    sample = Sample(image, "?")
    sample.load().putpixel((0, 0), (0, 0, 0))
    assert sample.load().getpixel((0, 0)) == (200, 0, 0)


def test_an_array_is_copied_and_stays_the_callers():
    whole = np.zeros((4, 5, 3), np.uint8)
    sample = Sample(whole[:, :4], "?")
    whole[:] = 200
    assert whole[:, :4].flags.writeable
    assert not np.asarray(sample.load()).any()


def test_a_transparent_colour_in_memory_becomes_black():
    image = Image.new("RGB", (4, 4), (200, 0, 0))
    image.info["transparency"] = (200, 0, 0)
    assert Sample(image, "?").load().getpixel((0, 0)) == (0, 0, 0)
