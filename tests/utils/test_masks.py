"""Masks in every encoding that annotation tools write: read rightly, or refused by loader and check alike."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from avsbench_data import check
from reference import images as reference
from utils.cli import InputError
from utils.dataset import AVSDataset
from utils.layout import BENCHMARKS, AVSBench
from utils.masks import SoftMaskError, read_mask

TRUE = np.zeros((224, 224), bool)
TRUE[61:181, 43:151] = True  # no edge on a border of JPEG's blocks
COUNT = int(TRUE.sum())


def png(image: Image.Image, **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **more)
    return buffer.getvalue()


def grey(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint8))


def palette(*colors: tuple[int, int, int], bits: int = 8) -> bytes:
    image = Image.fromarray(TRUE.astype(np.uint8)).convert("P")
    image.frombytes(TRUE.astype(np.uint8).tobytes())
    image.putpalette([number for color in colors for number in color])
    return png(image, bits=bits)


def by_opencv(pixels: np.ndarray, suffix: str = ".png", *settings: int) -> bytes:
    return cv2.imencode(suffix, pixels, list(settings))[1].tobytes()


def colored(color: tuple[int, ...]) -> bytes:
    """The thing in a color, all else in opaque black."""
    pixels = np.zeros((224, 224, len(color)), np.uint8)
    pixels[..., 3:] = 255
    pixels[TRUE] = color
    return png(Image.fromarray(pixels))


def alpha_only() -> bytes:
    pixels = np.full((224, 224, 4), 255, np.uint8)
    pixels[..., 3] = TRUE * 255
    return png(Image.fromarray(pixels))


def soft_levels() -> np.ndarray:
    small = grey(TRUE * 255).resize((100, 100), Image.Resampling.BILINEAR)
    return np.asarray(small.resize((224, 224), Image.Resampling.BILINEAR))


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
READ: dict[str, Callable[[], bytes]] = {
    "grey 0/255": lambda: png(grey(TRUE * 255)),
    "1 bit": lambda: png(Image.fromarray(TRUE)),
    "16 bit 0/65535": lambda: by_opencv(TRUE * np.uint16(65535)),
    "palette": lambda: palette(BLACK, WHITE),
    "palette of 1 bit": lambda: palette(BLACK, WHITE, bits=1),
    "RGB": lambda: png(grey(TRUE * 255).convert("RGB")),
    "RGB of 16 bits": lambda: by_opencv(np.dstack([TRUE * np.uint16(65535)] * 3)),
    "LA": lambda: png(grey(TRUE * 255).convert("LA")),
    "RGBA": lambda: png(grey(TRUE * 255).convert("RGBA")),
    "interlaced": lambda: by_opencv(TRUE * np.uint8(255), ".png", cv2.IMWRITE_PNG_COMPRESSION, 0),
    "BMP inside": lambda: by_opencv(TRUE * np.uint8(255), ".bmp"),
    "TIFF inside": lambda: by_opencv(TRUE * np.uint8(255), ".tiff"),
    "WebP without loss inside": lambda: by_opencv(np.dstack([TRUE * np.uint8(255)] * 3), ".webp", 64, 101),
}
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "grey 0/1": (lambda: png(grey(TRUE * 1)), f"8-bit gray 0, 1; {COUNT} of 50176 pixels are neither 0 nor 255"),
    "grey 0/37": (lambda: png(grey(TRUE * 37)), "8-bit gray 0, 37;"),
    "grey 0/128": (lambda: png(grey(TRUE * 128)), "8-bit gray 0, 128;"),
    "grey 0/200": (lambda: png(grey(TRUE * 200)), "8-bit gray 0, 200;"),
    "grey 0/254": (lambda: png(grey(TRUE * 254)), "8-bit gray 0, 254;"),
    "grey 1/255": (lambda: png(grey(np.where(TRUE, 255, 1))), "8-bit gray 1, 255; 37216 of"),
    "a class everywhere": (lambda: png(grey(TRUE * 0 + 7)), "8-bit gray 7; 50176 of 50176"),
    "soft edges": (lambda: png(grey(soft_levels())), "8-bit gray 0, 1, 2, 3, 4, 5, … 255 (63 values); 2826 of 50176"),
    "JPEG inside": (lambda: by_opencv(TRUE * np.uint8(255), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 85), "8-bit gray 0, "),
    "16 bit 0/255": (lambda: by_opencv(TRUE * np.uint16(255)), "16-bit gray 0, 255"),
    "16 bit 0/1": (lambda: by_opencv(TRUE * np.uint16(1)), "16-bit gray 0, 1"),
    "float 0/1": (lambda: by_opencv(TRUE.astype(np.float32), ".tiff"), "32-bit gray 0, 1"),
    "palette of VOC": (lambda: palette(BLACK, (128, 0, 0)), "8-bit RGB (0, 0, 0), (128, 0, 0)"),
    "palette of indices": (lambda: palette(BLACK, (1, 1, 1)), "8-bit gray 0, 1;"),
    "RGB red": (lambda: colored((255, 0, 0)), "8-bit RGB (0, 0, 0), (255, 0, 0)"),
    "RGBA red": (lambda: colored((255, 0, 0, 255)), "8-bit RGB (0, 0, 0), (255, 0, 0)"),
    "alpha only": (alpha_only, "8-bit RGBA (255, 255, 255, 0), (255, 255, 255, 255)"),
    "alpha of 254": (lambda: colored((255, 255, 255, 254)), "8-bit RGBA (0, 0, 0, 255), (255, 255, 255, 254)"),
}


@pytest.fixture(params=["ms3", "s4"])
def data(request: pytest.FixtureRequest, benchmark_copy: Path) -> AVSBench:
    return AVSBench(benchmark_copy / BENCHMARKS[request.param].root, request.param)


def run_check(data: AVSBench, *more: str) -> int:
    return check.main(["--root", str(data.root), "--benchmark", data.benchmark.name, "--jobs", "1", *more])


def test_masks_in_black_and_white_are_read_however_they_are_stored(
    data: AVSBench, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = AVSDataset(data, "test", audio="none")
    path = data.masks(dataset.clips[0])[2]
    for name, encode in READ.items():
        path.write_bytes(encode())
        found = dataset[0]["masks"][2]
        assert found.dtype == torch.float32 and torch.equal(found, torch.from_numpy(TRUE).float()), name
        assert check.clip_problems(data, dataset.clips[0], raw=False, features=False) == [], name
    for value in (0, 255):  # nothing sounds, or all of it does
        path.write_bytes(png(grey(np.full((224, 224), value))))
        assert dataset[0]["masks"][2].unique().tolist() == [value / 255]
    assert run_check(data) == 0 and "all ok" in capsys.readouterr().out


def test_all_others_are_refused_with_the_values_found(data: AVSBench, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = AVSDataset(data, "test", audio="none")
    clip = dataset.clips[0]
    path = data.masks(clip)[2]
    for name, (encode, told) in REFUSED.items():
        path.write_bytes(encode())
        with pytest.raises(InputError) as refusal:
            dataset[0]
        line = str(refusal.value)
        assert line.startswith(f"{path}: not a black-and-white mask: holds {told}") and "\n" not in line, name
        assert check.clip_problems(data, clip, raw=False, features=False) == [f"{line} — obtain gt_masks again"], name
    assert run_check(data) == 1
    assert line in (said := capsys.readouterr().out) and "1 with problems" in said and "all ok" not in said


def test_masks_in_grey_are_dithered_as_in_the_original_if_asked(
    data: AVSBench, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = AVSDataset(data, "test", audio="none", soft_masks="dither")
    clip = dataset.clips[0]
    path, levels = data.masks(clip)[2], soft_levels()
    between = int(((levels > 0) & (levels < 255)).sum())
    assert between > 1000
    for name, content in {
        "soft edges": png(grey(levels)),
        "a palette": png(grey(levels).convert("P")),
        "RGB": png(grey(levels).convert("RGB")),
        "grey 0/128": png(grey(TRUE * 128)),
        "black and white": png(grey(TRUE * 255)),
    }.items():
        path.write_bytes(content)
        found = dataset[0]["masks"][2]
        assert torch.equal(found, reference.read_mask(path, "s4")) and 0 < found.sum() < found.numel(), name
        assert check.clip_problems(data, clip, raw=False, features=False, soft_masks="dither") == [], name
    for encode, _ in (REFUSED[name] for name in ("RGB red", "alpha only", "palette of VOC", "16 bit 0/1")):
        path.write_bytes(encode())
        with pytest.raises(InputError, match="not a black-and-white mask") as refusal:
            dataset[0]
        assert not isinstance(refusal.value, SoftMaskError)
    path.write_bytes(png(grey(levels)))
    capsys.readouterr()
    for more, code in ([], 1), (["--soft-masks", "dither"], 0):
        assert run_check(data, *more) == code
        assert f"note: 1 gray mask, with {between} pixels" in capsys.readouterr().out


def test_what_does_not_belong_to_the_pixels_changes_no_mask(tmp_path: Path) -> None:
    """Orientation, gamma and the like are for pictures that people look at."""
    path, info = tmp_path / "mask.png", PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    path.write_bytes(png(grey(TRUE * 255), pnginfo=info, exif=exif))
    np.testing.assert_array_equal(read_mask(path), TRUE)


def test_a_mask_of_another_size_and_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(InputError, match="no such mask"):
        read_mask(path)
    for content, message in (
        (png(grey(TRUE[:100] * 255)), "is 224×100, not 224×224"),
        (b"no image", "not a readable image"),
        (b"", "not a readable image"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_mask(path)
