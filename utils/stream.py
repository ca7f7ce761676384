"""Read the frames of any video as a stream, upright and on a constant clock. FFmpeg through PyAV.

Nothing here grows with the length of the video but one time stamp per frame, while it is opened. Frames and sound
(utils.stream_sound) are read by separate passes over the file, so neither waits in memory for the other.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from utils.cli import InputError
from utils.encode import frame_rate
from utils.video import frame_indices, opened, to_rgb

STATED = Fraction(25)  # frames a second, where neither the file nor its time stamps say
LONGEST_HOLE = 3600  # seconds between frames, or between sounds, beyond which a time stamp is taken for damaged
FASTEST = 60  # frames a second of the clock of a variable rate; a constant rate is kept whatever it is


@dataclass(frozen=True)
class Video:
    """What is known of a video file once it has been opened.

    height, width: pixels, upright. fps: of the clock, constant. ticks: frames on the clock. origin: seconds on the
    file's own clock at which its first frame is shown; the sound starts there, too. timed: whether its frames have
    time stamps. sound_rate, channels: Hz and 1 or 2; 0 without a sound track. lost: frames that the file says it has
    and lacks, as when a copy was cut short.
    """

    path: Path
    height: int
    width: int
    fps: Fraction
    ticks: int
    origin: float
    timed: bool
    sound_rate: int
    channels: int
    lost: int = 0

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.ticks / self.fps)

    @property
    def seconds(self) -> int:
        """Seconds that have a frame; the last may be incomplete."""
        return self.second(self.ticks - 1) + 1

    def second(self, tick: int) -> int:
        """The second, from 0, that a frame lies in."""
        return int(tick / self.fps)

    def picked(self) -> list[int]:
        """Which frame stands for each second: that of utils.video.frame_indices, kept inside its second.

        Rates that are no whole number would else drift out of it: the rule counts 30 frames a second for 29.97.
        """
        begin = [math.ceil(second * self.fps) for second in range(self.seconds)]
        wanted, end = frame_indices(float(self.fps), self.seconds), [*begin[1:], self.ticks]
        return [min(max(index, a), b - 1) for index, a, b in zip(wanted, begin, end, strict=True)]


def open_video(path: Path) -> Video:
    """Look through a file without decoding more than one frame.

    Raises InputError, in one line, for a missing file and for one that is no video.
    """
    with opened(path) as (container, video, audio):
        stamps: list[int] = []
        there, number, latest, lasting = 0, 0, -float("inf"), 0
        for packet in container.demux(video):
            there += packet.size > 0
            if packet.size and not packet.is_discard:  # edit lists cut frames away
                number += 1
                if packet.pts is not None:
                    stamps.append(packet.pts)
                    if packet.pts > latest:
                        latest, lasting = packet.pts, packet.duration or 0
        timed = len(stamps) == number
        times = np.sort(np.array(stamps, float)) * float(video.time_base or 0)
        fps = video.average_rate or video.guessed_rate or STATED
        last = lasting * float(video.time_base or 0) if timed else 0.0
        lost = max(video.frames - there, 0)  # frames is 0 where the container does not say
        rate, channels = (audio.rate, min(audio.channels, 2)) if audio else (0, 0)
    if not timed:
        times = np.arange(number) / float(fps)
    if (hole := float(np.append(np.diff(times), last).max())) > LONGEST_HOLE:
        raise InputError(f"{path}: damaged, for it shows a frame for {hole / 3600:.0f} hours; obtain it again")
    fps = max(frame_rate(_clock_rate(times, fps)), Fraction(1))
    origin = float(times[0]) if len(times) else 0.0
    span = float(times[-1]) - origin if len(times) else 0.0
    ticks = round(span * float(fps)) + max(1, round(last * float(fps)))
    with opened(path) as (container, video, _):
        first = next(decoded(container, video), None)
        if not isinstance(first, av.VideoFrame):
            raise InputError(f"{path}: no frame could be decoded; obtain it again")
        height, width = _upright(to_rgb(first), first.rotation).shape[:2]
    return Video(path, height, width, fps, ticks, origin, timed, rate, channels, lost)


def read_frames(video: Video) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every tick of the clock, from 0, with the frame that is nearest to it in time; damage repeats the one before.

    Frames are decoded one at a time, and turned into pixels by `pixels` only where they are wanted.
    """
    tick, shown = 0, None
    with opened(video.path) as (container, stream, _):
        stream.thread_type = "AUTO"
        numbers = count()
        for frame in decoded(container, stream):
            assert isinstance(frame, av.VideoFrame)
            at = next(numbers)
            if video.timed and frame.time is not None:
                at = round((frame.time - video.origin) * float(video.fps))
            if shown is None:
                shown = frame
            while tick < min(at, video.ticks):
                yield tick, shown
                tick += 1
            shown = frame
    while shown is not None and tick < video.ticks:
        yield tick, shown
        tick += 1


def pixels(video: Video, frame: av.VideoFrame) -> np.ndarray:
    """A frame upright, (height, width, 3) RGB uint8, as all of the video's are."""
    rgb = _upright(to_rgb(frame), frame.rotation)
    if rgb.shape[:2] != (video.height, video.width):  # some streams change their size on the way
        rgb = cv2.resize(rgb, (video.width, video.height), interpolation=cv2.INTER_AREA)
    return rgb


def decoded(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """What can be decoded of a track; damaged packets are passed over."""
    for packet in container.demux(stream):
        try:
            yield from packet.decode()  # type: ignore[misc]
        except av.InvalidDataError:
            continue


def _clock_rate(times: np.ndarray, stated: Fraction) -> Fraction:
    """Frames a second that suit time stamps in seconds, sorted: the stated rate where they bear it out."""
    steps = np.diff(times)
    if len(steps) == 0 or times[-1] == times[0]:
        return stated
    usual, short = float(steps.mean()), float(np.percentile(steps, 10))
    if short > 0.9 * usual:  # constant, but for rounding to milliseconds
        return stated if abs(float(stated) * usual - 1) < 0.03 else Fraction(1 / usual)
    rate = min(1 / short, FASTEST) if short > 0 else FASTEST
    return Fraction(round(rate)) if abs(round(rate) / rate - 1) < 0.02 else Fraction(rate)


def _upright(rgb: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a picture by the file's display matrix, degrees counterclockwise; other than quarter turns are left."""
    return np.ascontiguousarray(np.rot90(rgb, rotation // 90)) if rotation % 90 == 0 and rotation else rgb
