"""Decoded frames to RGB, by their color tags: matrices, color spaces that are refused, size, turning."""

import av
import numpy as np
import pytest

from utils.cli import InputError
from utils.video_frame import is_transposed, shrink_frame, to_rgb

# Weights of red and blue in luma, ITU-T H.273 table 4; 2 is an untagged file.
WEIGHTS = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}


def tagged(samples: np.ndarray, colorspace: int) -> av.VideoFrame:
    """A frame of YUV samples (3, H, W) in studio range."""
    frame = av.VideoFrame.from_ndarray(samples, format="yuv444p")
    frame.colorspace, frame.color_range = colorspace, 1
    return frame


@pytest.mark.parametrize("colorspace", WEIGHTS)
def test_the_matrix_of_each_color_space(colorspace: int) -> None:
    red, blue = WEIGHTS[colorspace]
    colors = np.array([(180, 60, 40), (70, 160, 90), (50, 70, 190)]) / 255.0
    luma = colors @ [red, 1 - red - blue, blue]
    chroma = [(colors[:, 2] - luma) / (2 - 2 * blue), (colors[:, 0] - luma) / (2 - 2 * red)]
    yuv = np.round([16 + 219 * luma, *(128 + 224 * part for part in chroma)]).astype(np.uint8)
    rgb = to_rgb(tagged(np.repeat(yuv[:, None], 4, 1), colorspace))
    assert np.abs(rgb[0] - 255 * colors).max() < 1.5


@pytest.mark.parametrize("bits", ["", "10le"])
def test_ycgco(bits: str) -> None:
    """H.273, equations for MatrixCoefficients 8; 10-bit and subsampled files take other paths."""
    colors = np.array([(180, 60, 40), (70, 160, 90), (50, 70, 190)]) / 255.0
    red, lime, blue = colors.T
    luma, green, orange = 0.25 * red + 0.5 * lime + 0.25 * blue, 0.5 * lime - 0.25 * (red + blue), 0.5 * (red - blue)
    yuv = np.round([16 + 219 * luma, 128 + 224 * green, 128 + 224 * orange]).astype(np.uint8)
    frame = tagged(np.repeat(yuv[:, None], 4, 1), 2)
    if bits:
        frame = frame.reformat(format=f"yuv444p{bits}", src_color_range=1, dst_color_range=1)
    frame.colorspace = 8
    assert np.abs(to_rgb(frame)[0] - 255 * colors).max() < 1.6


@pytest.mark.parametrize("colorspace", [8, *range(11, 18)])
def test_color_spaces_without_a_matrix(colorspace: int) -> None:
    """Refused; the original's FFmpeg took them for untagged ones."""
    samples = np.random.default_rng(0).integers(16, 236, (3, 16, 16), np.uint8)
    published = to_rgb(tagged(samples, colorspace), "published")
    assert np.array_equal(published, to_rgb(tagged(samples, 2), "published"))
    if colorspace != 8:
        with pytest.raises(InputError, match=rf"color space {colorspace} .* convert the video"):
            to_rgb(tagged(samples, colorspace))
    gray = av.VideoFrame.from_ndarray(samples[0], format="gray")
    gray.colorspace = colorspace
    assert to_rgb(gray).shape == (16, 16, 3)


def test_a_narrow_frame_keeps_a_pixel() -> None:
    assert shrink_frame(np.zeros((1, 300, 3), np.uint8), 32).shape == (1, 32, 3)
    assert shrink_frame(np.zeros((400, 300, 3), np.uint8), 200).shape == (200, 150, 3)
    assert shrink_frame(np.zeros((40, 30, 3), np.uint8), 200).shape == (40, 30, 3)


@pytest.mark.parametrize("matrix, expected", [([[0, 9], [-10, 0]], True), ([[0, -10], [9, 0]], True)])
def test_transposed_matrices(matrix: list[list[int]], expected: bool) -> None:
    assert is_transposed(np.array(matrix)) == expected
    assert is_transposed(np.array(matrix)[::-1]) != expected
