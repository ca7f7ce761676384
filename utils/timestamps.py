"""When the frames of a file are shown: time stamps on one clock, and the frame that stands for each second."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from utils.layout import CLIP_SECONDS

SAMPLE_POINT = 15 / 16  # of each second: the frame shown then stands for it. Source: AVSBench, `preprocess_s4.py`
ROUNDING = 0.0005  # seconds: Matroska rounds time stamps to the millisecond
TS_DISCONT = 0x200  # FFmpeg's AVFMT_TS_DISCONT: formats (MPEG-TS, VOB, Ogg) whose time stamps may start again
MAX_GAP, MAX_OVERLAP = 10.0, 0.1  # seconds between packets, beyond which such a file was joined. Source: ffmpeg 4.2


def demux_continuous(
    container: InputContainer, *streams: VideoStream | AudioStream | None, joints: list[float] | None = None
) -> Iterator[av.Packet]:
    """Demux streams of a file with time stamps that go on where the file's own start again or leap.

    Joined recordings (`cat a.ts b.ts`, the parts of a DVD) do that. As in the ffmpeg program, what follows a joint is
    shifted to begin where the part before it ends. All tracks of a part are shifted alike, so sound and picture stay
    together, if those that were given to one call are given to all.

    Args:
        container: An open file.
        streams: Its tracks to read; None is left out.
        joints: Gets the seconds, on the clock of the packets, at which each part after the first begins.

    Yields:
        Packets in the order of the file, and an empty one for each track that ends it.
    """
    shifts, part, ends = [0.0], dict[int, int](), dict[int, float]()
    for packet in container.demux(*(stream for stream in streams if stream)):
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is not None and container.format.flags & TS_DISCONT:
            track, time_base = packet.stream.index, float(packet.time_base)
            at, end, now = stamp * time_base, ends.get(track), part.get(track, 0)
            fits = [end is None or -MAX_OVERLAP <= at + shift - end <= MAX_GAP for shift in shifts]
            if end is not None and not fits[now]:
                # Another track may have come to this joint before.
                now = next((number for number in range(now + 1, len(shifts)) if fits[number]), len(shifts))
                if now == len(shifts):
                    shifts.append(end - at)
                    if joints is not None:
                        joints.append((stamp if packet.pts is None else packet.pts) * time_base + shifts[now])
            part[track] = now
            ends[track] = at + shifts[now] + (packet.duration or 0) * time_base
            if shift := round(shifts[now] / time_base):
                packet.pts = None if packet.pts is None else packet.pts + shift
                packet.dts = None if packet.dts is None else packet.dts + shift
        yield packet


def displayed_frames(times: np.ndarray, seconds: int = CLIP_SECONDS) -> np.ndarray:
    """Which frame is on the screen at 15/16 of each second.

    Args:
        times: Seconds (n,), sorted, from the first frame on, at which the frames are shown.
        seconds: How many seconds.

    Returns:
        Indices (seconds,) into times; the last frame stays.
    """
    return np.searchsorted(times, np.arange(seconds) + SAMPLE_POINT + ROUNDING, side="right") - 1


def published_frame_indices(fps: float, seconds: int = CLIP_SECONDS) -> list[int]:
    """Which frame of a constant rate stands for each second by the original's rule: it counts at the rounded rate.

    Source: AVSBench, `preprocess_s4.py` (Python's round: half to even). 25 fps gives 23, 48, 73, 98, 123.
    """
    rate = round(fps)
    return [int(second * rate + SAMPLE_POINT * rate) for second in range(seconds)]


def ffmpeg_constant_rate(times: Sequence[float], rate: float) -> list[int]:
    """Which frames the ffmpeg program gives where it makes a constant rate: it repeats and drops some.

    A gap is filled by the frame before it and, for the last tick or two, by the one after it.

    Args:
        times: Seconds, sorted, from the start of the file on, at which the frames are shown.
        rate: Frames a second.

    Returns:
        For each frame that ffmpeg gives, its index in times. Source: ffmpeg 4.2, `do_video_out` with -vsync cfr.
    """
    given: list[int] = []
    for index, time in enumerate(times):
        ahead = time * rate - len(given)  # ticks between the end of what is given and this frame
        if ahead < -2.1:
            continue
        copies = round(ahead + 1) if ahead > 0.1 else 1
        before = round(ahead - 0.6) if ahead > 1.1 and given else 0
        given += [index - 1] * before + [index] * (copies - before)
    return given


def published_frames(video: VideoStream, times: np.ndarray, seconds: int = CLIP_SECONDS) -> np.ndarray:
    """`displayed_frames` by the original's rule: imageio's ffmpeg makes a constant rate, and its frames are counted.

    times: seconds from the start of the file on, sorted. The rate that imageio reads off ffmpeg's output is the "tbr".
    """
    rate = video.guessed_rate or video.base_rate or video.average_rate or Fraction(25)
    given = ffmpeg_constant_rate(times.tolist(), float(rate))
    indices = published_frame_indices(round(float(video.base_rate or rate), 2), seconds)
    return np.array([given[min(index, len(given) - 1)] for index in indices])
