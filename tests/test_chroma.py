"""How color of half the resolution is enlarged, beside what the ffmpeg program (5.1) makes of the same samples.

Red of a row, or a column, across an edge between two colors of one luma. Bilinear would leave out the overshoot.
"""

import av
import numpy as np
import pytest

from utils.fidelity import Fidelity
from utils.picture import to_rgb

# ffmpeg -f rawvideo -pix_fmt FORMAT -s 48x48 -i - -vf scale=flags=bicubic -f rawvideo -pix_fmt rgb24 -
NEAREST = [37, 37, 37, 37, 37, 37, 222, 222, 222, 222, 222, 222]  # yuv420p has a conversion of its own there
BICUBIC = [35, 35, 35, 31, 20, 76, 181, 237, 226, 221, 221, 221]
# The same with the flags accurate_rnd+full_chroma_int+full_chroma_inp.
EXACT = [38, 38, 38, 33, 22, 77, 184, 239, 228, 223, 223, 223]


def edges(kind: str) -> av.VideoFrame:
    """A frame (48, 48), green beside red in the upper half, red beside green in the lower."""
    red = np.full((24, 24), 70, np.uint8)
    red[:12, 12:] = red[12:, :12] = 186
    samples = np.concatenate([np.full((48, 48), 128, np.uint8).ravel(), np.full(576, 128, np.uint8), red.ravel()])
    frame = av.VideoFrame.from_ndarray(samples.reshape(72, 48), format="yuv420p")
    return frame if kind == "yuv420p" else frame.reformat(format=kind)


@pytest.mark.parametrize(
    ("fidelity", "kind", "column"),
    [
        ("published", "yuv420p", NEAREST),
        ("published", "nv12", BICUBIC),
        ("published", "yuv420p10le", BICUBIC),
        ("corrected", "nv12", EXACT),
        ("corrected", "yuv420p10le", EXACT),
    ],
)
def test_chroma_is_enlarged_as_ffmpeg_does(fidelity: Fidelity, kind: str, column: list[int]) -> None:
    rgb = to_rgb(edges(kind), fidelity).astype(int)
    assert np.abs(rgb[18:30, 6, 0] - column).max() <= 3
    row = EXACT if fidelity == "corrected" else NEAREST  # libswscale repeats columns by default
    assert np.abs(rgb[6, 18:30, 0] - row).max() <= 3
