"""AVI files, which count their packets in the order of decoding and state no other time."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from tests.helpers.videos import level, moving, tone
from utils.timestamps import PacketDecoder, are_in_decode_order
from utils.video import read_clip
from utils.video_frame import resize_frame, to_rgb
from utils.video_info import open_video
from utils.video_stream import read_frame_per_second, read_frames

SECONDS = 6
DROPPED = (9, 60, 61)  # frames that the encoder leaves out


def avi(path: Path, codec: str, rate: int = 25, b_frames: int = 0, dropped: Sequence[int] = ()) -> Path:
    """Six seconds of the frames of `moving`, without those that are dropped, and sound."""
    count = SECONDS * rate
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={} if codec == "mjpeg" else {"bf": str(b_frames)})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        audio = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for number, grey in enumerate(moving(count)):
            if number not in dropped:
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, rate)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        sound = (tone(SECONDS, 48_000) * 32767).astype(np.int16).T
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="s16", layout="mono")
        block.sample_rate = 48_000
        container.mux([*audio.encode(block), *audio.encode(None)])  # type: ignore[attr-defined]
    return path


def test_frames_that_an_avi_drops_are_not_missing(tmp_path: Path) -> None:
    """Its header counts their places, too; they show the frame before."""
    path = avi(tmp_path / "dropped.avi", "mjpeg", rate=10, dropped=[9])
    video = open_video(path)
    assert video.missing_frames == 0 and (video.fps, video.num_frames) == (10, 60)
    assert [round(level(frame)) for frame in read_clip(path).frames] == [8, 19, 29, 39, 49]


@pytest.mark.parametrize("dropped", [(), DROPPED], ids=["all", "dropped"])
@pytest.mark.parametrize("codec, b_frames", [("libx264", 0), ("libx264", 1), ("libx264", 3), ("mpeg4", 2)])
def test_frames_are_counted_as_they_are_displayed(
    tmp_path: Path, codec: str, b_frames: int, dropped: Sequence[int]
) -> None:
    """Whatever the order in which they are stored, in preprocessing as in the demo."""
    path = avi(tmp_path / "a.avi", codec, b_frames=b_frames, dropped=dropped)
    video = open_video(path)
    shown = [level(to_rgb(frame)) for _, frame in read_frames(video)]
    kept = [number for number in range(150) if not set(dropped) & {number - 1, number, number + 1}]
    assert video.num_frames == len(shown) == 150
    assert [shown[number] for number in kept] == pytest.approx([number % 75 for number in kept], abs=0.7)
    frames = read_clip(path).frames
    assert [round(level(frame)) for frame in frames] == [23, 48, 73, 98 - 75, 123 - 75]
    for (second, frame), ours in zip(read_frame_per_second(video), frames, strict=False):
        assert np.array_equal(resize_frame(to_rgb(frame)), ours), second


@pytest.mark.parametrize(
    "codec, b_frames, late", [("libx264", 0, 0), ("mpeg4", 0, 0), ("libx264", 1, 1), ("mpeg4", 2, 1), ("libx264", 3, 2)]
)
def test_published_takes_frames_as_they_leave_the_decoder(tmp_path: Path, codec: str, b_frames: int, late: int) -> None:
    """Figures of ffmpeg 4.2.2, imageio's: it repeats the first frame while the decoder holds others back."""
    path = avi(tmp_path / "a.avi", codec, b_frames=b_frames)
    levels = [level(frame) for frame in read_clip(path, "published").frames]
    assert levels == pytest.approx([(number - late) % 75 for number in (23, 48, 73, 98, 123)], abs=0.7)


@pytest.mark.parametrize(
    "reordered, stamps, expected",
    [
        (True, [1, 2, 3], True),
        (True, [1, 3, 2], False),
        (True, [1, 2, 2], False),
        (True, [1, None, 3], False),
        (False, [1, 2, 3], False),
    ],
)
def test_time_stamps_in_the_order_of_decoding(reordered: bool, stamps: list[int | None], expected: bool) -> None:
    video: Any = SimpleNamespace(codec_context=SimpleNamespace(has_b_frames=reordered))
    assert are_in_decode_order(video, stamps) == expected


def test_packets_without_frames_do_not_delay_the_others() -> None:
    """A file that begins within a group of pictures: of its first two packets there are no frames."""
    decoder = PacketDecoder(in_decode_order=True)

    def decode(stamp: int, *frames: int) -> list[int | None]:
        content: Any = [SimpleNamespace(pts=frame) for frame in frames]
        packet: Any = SimpleNamespace(pts=stamp, size=1, is_discard=False, decode=lambda: content)
        return [frame.pts for frame in decoder.decode(packet)]

    found = [decode(1), decode(2), decode(3), decode(4, 3), decode(5, 5), decode(6, 4)]
    assert found == [[], [], [], [3], [4], [5]]
