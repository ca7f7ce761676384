"""The frames and labels of AVSS: palette, decoding and sizes as in the original, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import golden_values as golden
from utils.classes import CLASSES, PALETTE, class_of, decode, parse_objects, unknown_pixels
from utils.cli import InputError
from utils.files import png_bytes, write_bytes
from utils.labels import fit, read_color_labels, read_index_labels

FIGURES = np.load(Path(__file__).parents[1] / "golden" / "avss_loader_seed1.npz")


def blocks(name: str, shape: tuple[int, ...], scale: int) -> np.ndarray:
    values = (scale * golden.tensor(1, name, shape, "uniform")).floor().numpy().astype(np.uint8)
    return values.repeat(8, 0).repeat(8, 1)


def test_golden_palette_and_decoding() -> None:
    assert len(CLASSES) == 71 and np.array_equal(PALETTE, FIGURES["palette"])
    picture = PALETTE[FIGURES["decode_label"]]
    picture[0, 0], picture[1, 1], picture[2, 2] = (1, 0, 0), (255, 255, 255), (127, 0, 0)
    assert np.array_equal(decode(picture), FIGURES["decode_result"])
    assert np.argwhere(unknown_pixels(picture)).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_every_other_color_is_unknown() -> None:
    levels = np.stack(np.meshgrid(*[np.arange(0, 256, 32, np.uint8)] * 3), -1).reshape(1, -1, 3)
    known = {tuple(color) for color in PALETTE.tolist()}
    for color, unknown in zip(levels[0].tolist(), unknown_pixels(levels)[0], strict=True):
        assert unknown == (tuple(color) not in known)
    assert np.array_equal(decode(PALETTE[None])[0], np.arange(71))


def test_golden_sizes() -> None:
    picture, mask = blocks("avss_image", (30, 40, 3), 255), blocks("avss_mask", (30, 40), 71)
    for name, train in (("train", True), ("test", False)):
        assert np.array_equal(fit(picture, train=train)[::9, ::9], FIGURES[f"image_{name}"])
        assert np.array_equal(fit(mask, train=train, label=True)[::5, ::5], FIGURES[f"mask_{name}"])
        colored = fit(PALETTE[mask], train=train, label=True)
        assert np.array_equal(decode(colored)[::5, ::5], FIGURES[f"mask_{name}"])
    tall = np.ascontiguousarray(np.rot90(picture))
    assert np.array_equal(fit(tall, train=True)[::9, ::9], FIGURES["image_train_tall"])
    odd = np.asarray(Image.fromarray(picture).resize((301, 199), Image.Resampling.BILINEAR))
    assert np.array_equal(fit(odd, train=True)[::9, ::9], FIGURES["image_train_odd"])


def test_names() -> None:
    assert parse_objects("man_emergency-car") == (["man", "emergency-car"], [])
    assert parse_objects("h orse") == (["horse"], [])
    assert parse_objects("off-the-screen") == parse_objects("background") == ([], [])
    assert parse_objects("pinao_man") == (["man"], ["pinao"])
    categories = ["playing_violin", "ambulance_siren", "coyote_howling", "helicopter", "playing_glockenspiel", "ship"]
    classes = ["violin", "emergency-car", "wolf", "helicopter", "marimba", None]
    assert [class_of(category) for category in categories] == classes


def test_unknown_colors_and_indices(tmp_path: Path) -> None:
    picture = PALETTE[np.full((20, 30), 41)]
    picture[3, 4] = picture[5, 6] = (1, 2, 3)
    path = tmp_path / "0.png"
    write_bytes(path, png_bytes(picture))
    with pytest.raises(InputError, match=r"0.png: 2 of 600 pixels are in no class's color, such as \(1, 2, 3\)"):
        read_color_labels(path)
    assert read_color_labels(path, "background")[3, 4] == 0
    indices = np.full((20, 30), 70, np.uint8)
    write_bytes(path, png_bytes(indices))
    assert (read_index_labels(path) == 70).all()
    indices[0, 0] = 255
    write_bytes(path, png_bytes(indices))
    with pytest.raises(InputError, match=r"0.png: 1 of 600 pixels are above class 70, such as 255"):
        read_index_labels(path)
    assert read_index_labels(path, "background")[0, 0] == 0
    write_bytes(path, png_bytes(picture))
    with pytest.raises(InputError, match="has 3 channels"):
        read_index_labels(path)
    path.write_bytes(b"no picture")
    for read in (read_color_labels, read_index_labels):
        with pytest.raises(InputError, match="not a readable image"):
            read(path)


def test_index_labels_may_have_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10), "L").convert("P")
    image.putdata(range(60))
    image.putpalette(PALETTE.tobytes())
    image.save(tmp_path / "0.png")
    assert np.array_equal(read_index_labels(tmp_path / "0.png"), np.arange(60).reshape(6, 10))
    assert np.array_equal(read_color_labels(tmp_path / "0.png"), np.arange(60).reshape(6, 10))
