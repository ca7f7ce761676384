"""Time stamps: packets on one continuous clock, and the frame that represents each second of a video."""

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

SAMPLE_POINT = 15 / 16  # of each second: when its frame is taken. Source: AVSBench, `preprocess_s4.py`
ROUNDING = 0.0005  # seconds: Matroska rounds time stamps to milliseconds
TS_DISCONT = 0x200  # FFmpeg's AVFMT_TS_DISCONT: formats (MPEG-TS, VOB, Ogg) whose time stamps may restart
MAX_GAP, MAX_OVERLAP = 10.0, 0.1  # seconds between packets; more is a discontinuity. Source: ffmpeg 4.2


def demux_continuous(
    container: InputContainer, *streams: VideoStream | AudioStream | None, discontinuities: list[float] | None = None
) -> Iterator[av.Packet]:
    """Demux streams of a file whose time stamps may restart or jump, and make the time stamps continuous.

    Concatenated recordings (`cat a.ts b.ts`, the parts of a DVD) have such discontinuities. As in the ffmpeg program,
    each part is shifted to begin where the one before it ends. All streams of a part are shifted by the same time, so
    that audio and video stay synchronous, provided that the same streams are passed to every call.

    Args:
        container: An open file.
        *streams: The streams to read; None is ignored.
        discontinuities: A list to which the start of each part after the first is appended, in seconds.

    Yields:
        Packets in the order of the file, and an empty one at the end of each stream.
    """
    shifts, part, ends = [0.0], dict[int, int](), dict[int, float]()
    for packet in container.demux(*(each for each in streams if each)):
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is not None and container.format.flags & TS_DISCONT:
            stream, time_base = packet.stream.index, float(packet.time_base)
            at, end, now = stamp * time_base, ends.get(stream), part.get(stream, len(shifts) - 1)
            fits = [end is None or -MAX_OVERLAP <= at + shift - end <= MAX_GAP for shift in shifts]
            if end is not None and not fits[now]:
                # Another stream may have reached this discontinuity before.
                now = next((number for number in range(now + 1, len(shifts)) if fits[number]), len(shifts))
                if now == len(shifts):
                    shifts.append(end - at)
                    if discontinuities is not None:
                        discontinuities.append((stamp if packet.pts is None else packet.pts) * time_base + shifts[now])
            part[stream] = now
            ends[stream] = at + shifts[now] + (packet.duration or 0) * time_base
            if shift := round(shifts[now] / time_base):
                packet.pts = None if packet.pts is None else packet.pts + shift
                packet.dts = None if packet.dts is None else packet.dts + shift
        yield packet


def are_in_decode_order(video: VideoStream, stamps: Sequence[int | None]) -> bool:
    """Whether the time stamps of a stream are in the order of decoding although its frames are displayed in another.

    AVI has no others, and a copy in another format (ffmpeg -c copy) keeps them.

    Args:
        video: The stream.
        stamps: Of its packets, in the order of the file.
    """
    known = [stamp for stamp in stamps if stamp is not None]
    ascending = all(before < after for before, after in pairwise(known))
    return bool(video.codec_context.has_b_frames) and len(known) == len(stamps) and ascending


class PacketDecoder:
    """Decodes the packets of a stream, whose frames come in the order in which they are displayed.

    If time stamps are in the order of decoding (`are_in_decode_order`), the n-th frame gets the n-th of them.
    """

    def __init__(self, in_decode_order: bool = False):
        self._in_decode_order = in_decode_order
        self._stamps: deque[int] = deque()  # of packets whose frames have not come yet
        self._is_first = True

    def decode(self, packet: av.Packet) -> list[av.VideoFrame | av.AudioFrame]:
        """Decode the next packet. Raises av.InvalidDataError if it is damaged."""
        frames: list[av.VideoFrame | av.AudioFrame] = list(packet.decode())
        if not self._in_decode_order:
            return frames
        if packet.size and packet.pts is not None and not packet.is_discard:
            self._stamps.append(packet.pts)
        for frame in frames:
            # Of packets before the first frame that can be decoded, there are no frames.
            while self._is_first and frame.pts is not None and self._stamps and self._stamps[0] < frame.pts:
                self._stamps.popleft()
            self._is_first = False
            if self._stamps:
                frame.pts = self._stamps.popleft()
        return frames


def decode_frames(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    *streams: VideoStream | AudioStream | None,
    in_decode_order: bool = False,
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode a stream, skipping damaged packets.

    Args:
        container: An open file.
        stream: The stream to decode.
        *streams: All streams that `open_media` gave, which `demux_continuous` keeps synchronous.
        in_decode_order: Whether its time stamps are, see `are_in_decode_order`.
    """
    decoder = PacketDecoder(in_decode_order)
    for packet in demux_continuous(container, *streams):
        if packet.stream is not stream:
            continue
        try:
            yield from decoder.decode(packet)
        except av.InvalidDataError:
            continue


def displayed_frames(times: np.ndarray, seconds: int = 5) -> np.ndarray:
    """The frame that is displayed at 15/16 of each second.

    Args:
        times: (n,) seconds from the first frame at which the frames are displayed, sorted.
        seconds: Number of seconds.

    Returns:
        (seconds,) indices into times; the last frame is repeated if the video ends early.
    """
    return np.searchsorted(times, np.arange(seconds) + SAMPLE_POINT + ROUNDING, side="right") - 1


def published_frame_indices(fps: float, seconds: int = 5) -> list[int]:
    """The frame of each second by the original's rule, which counts frames at the rounded rate.

    25 fps gives 23, 48, 73, 98, 123. Source: AVSBench, `preprocess_s4.py` (Python's round: half to even).
    """
    rate = round(fps)
    return [int(second * rate + SAMPLE_POINT * rate) for second in range(seconds)]


def ffmpeg_constant_rate(times: Sequence[float], rate: float) -> list[int]:
    """The frames that the ffmpeg program outputs at a constant rate, for which it repeats and drops frames.

    A gap is filled with the frame before it and, for its last one or two frames, with the one after it.

    Args:
        times: Seconds from the start of the file at which the frames are displayed, sorted.
        rate: Frames per second.

    Returns:
        The index into times of each frame that ffmpeg outputs.

    Source: ffmpeg 4.2, `do_video_out` with -vsync cfr.
    """
    output: list[int] = []
    for index, time in enumerate(times):
        ahead = time * rate - len(output)  # output frames between the last one and this frame
        if ahead < -2.1:
            continue
        copies = round(ahead + 1) if ahead > 0.1 else 1
        before = round(ahead - 0.6) if ahead > 1.1 and output else 0
        output += [index - 1] * before + [index] * (copies - before)
    return output


def published_frames(video: VideoStream, times: np.ndarray, seconds: int = 5) -> np.ndarray:
    """The frame of each second as the original selects it: imageio's ffmpeg outputs a constant rate, which is counted.

    Args:
        video: The stream, whose rate is the "tbr" that imageio reads from ffmpeg's output.
        times: (n,) seconds from the start of the file at which the frames are displayed, sorted.
        seconds: Number of seconds.

    Returns:
        (seconds,) indices into times.
    """
    rate = video.guessed_rate or video.base_rate or video.average_rate or Fraction(25)
    output = ffmpeg_constant_rate(times.tolist(), float(rate))
    indices = published_frame_indices(round(float(video.base_rate or rate), 2), seconds)
    return np.array([output[min(index, len(output) - 1)] for index in indices])
