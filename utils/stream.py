"""Read the frames of any video as a stream, as people see them and on a constant clock. FFmpeg through PyAV.

Nothing here grows with the length of the video but one time stamp per frame, while it is opened. Frames and sound
(utils.stream_sound) are read by separate passes over the file, so neither waits in memory for the other. What a file
looks like and when is said by utils.picture and utils.timeline, for preprocessing too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from utils.cli import InputError
from utils.encode import frame_rate
from utils.picture import display_matrix, is_oblique, is_turned, shown_size, to_rgb
from utils.timeline import ROUNDING, SAMPLE_POINT, steady_packets
from utils.tone_map import TRANSFERS
from utils.video import lost_frames, opened

STATED = Fraction(25)  # frames a second, where neither the file nor its time stamps say
LONGEST_HOLE = 3600  # seconds between frames, or between sounds, beyond which a time stamp is taken for damaged
FASTEST = 60  # frames a second of the clock of a variable rate; a constant rate is kept whatever it is
EARLY_SOUND, LATE_SOUND = 0.2, 1.0  # seconds before the first and after the last picture, beyond which a note says so
SPARSE = 61  # prime, so that no column is met in every row


@dataclass(frozen=True)
class Video:
    """What is known of a video file once it has been opened.

    height, width: of the pictures as people see them: upright, in square pixels. fps: of the clock, constant. ticks:
    frames on the clock. origin: seconds on the file's own clock at which its first frame is shown; the sound starts
    there, too. timed: whether its frames have time stamps. sound_rate, channels: Hz and 1 or 2; 0 without a sound
    track. lost: frames that the file says it has and lacks, as when a copy was cut short. notes: what is unusual about
    the file, a sentence each; reading it may add some.
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
    notes: list[str] = field(default_factory=list, compare=False)

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
        """Which tick of each second stands for it: the one at 15/16, the first that begins there, or the last."""
        wanted = (int((second + SAMPLE_POINT + ROUNDING) * self.fps) for second in range(self.seconds))
        return [min(max(tick, math.ceil(s * self.fps)), self.ticks - 1) for s, tick in enumerate(wanted)]

    def add_note(self, note: str) -> None:
        """Note what reading has brought to light, once."""
        if note not in self.notes:
            self.notes.append(note)


def open_video(path: Path) -> Video:
    """Look through a file without decoding more than one frame.

    Raises InputError, in one line, for a missing file and for one that is no video.
    """
    joints: list[float] = []
    with opened(path) as (container, video, audio):
        stamps: list[int] = []
        there, number, latest, lasting = 0, 0, -float("inf"), 0
        heard: list[float] = []  # from when until when
        for packet in steady_packets(container, video, audio, joints=joints):
            if packet.stream is not video:
                if packet.pts is not None and packet.size and not packet.is_discard:
                    begin = float(packet.pts * packet.time_base)
                    end = begin + float((packet.duration or 0) * packet.time_base)
                    heard = [min(begin, *heard[:1]), max(end, *heard[1:])] if heard else [begin, end]
                continue
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
        lost = lost_frames(container, video, there, max(stamps, default=None))
        rate, channels = (audio.rate, min(audio.channels, 2)) if audio else (0, 0)
        aspect = video.sample_aspect_ratio
    if not timed:
        times = np.arange(number) / float(fps)
    if (hole := float(np.append(np.diff(times), last).max())) > LONGEST_HOLE:
        raise InputError(f"{path}: damaged, for it shows a frame for {hole / 3600:.0f} hours; obtain it again")
    origin = float(times[0]) if len(times) else 0.0
    notes = [_joined(joints, origin)] if joints else []
    if heard and timed:
        last = max(last, _sound_beyond(heard, times, last, notes))
    fps = max(frame_rate(_clock_rate(times, fps)), Fraction(1))
    span = float(times[-1]) - origin if len(times) else 0.0
    ticks = round(span * float(fps)) + max(1, round(last * float(fps)))
    with opened(path) as (container, video, audio):
        first = next(decoded(container, video, video, audio), None)
        if not isinstance(first, av.VideoFrame):
            raise InputError(f"{path}: no frame could be decoded; obtain it again")
        matrix = display_matrix(first)
        height, width = shown_size(first.height, first.width, aspect)
        if is_turned(matrix):
            height, width = width, height
        if is_oblique(matrix):
            notes.append("The file asks for its pictures to be turned by other than quarter turns; they are not.")
        if first.color_trc in TRANSFERS:
            kind = TRANSFERS[first.color_trc]
            notes.append(f"The film is HDR ({kind}): its colors are tone-mapped to those of an ordinary screen.")
    return Video(path, height, width, fps, ticks, origin, timed, rate, channels, lost, notes)


def read_frames(video: Video) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every tick of the clock, from 0, with the frame that is nearest to it in time; damage repeats the one before.

    Frames are decoded one at a time, and turned into pixels by `pixels` only where they are wanted.
    """
    tick, shown = 0, None
    for time, frame in _timed(video):
        at = round(time * float(video.fps))
        if shown is None:
            shown = frame
        while tick < min(at, video.ticks):
            yield tick, shown
            tick += 1
        shown = frame
    while shown is not None and tick < video.ticks:
        yield tick, shown
        tick += 1


def read_seconds_frames(video: Video) -> Iterator[tuple[int, av.VideoFrame]]:
    """Every second, from 0, with the frame that is on the screen at 15/16 of it, as utils.timeline.frames_shown."""
    second, shown = 0, None
    for time, frame in _timed(video):
        while shown is not None and second < video.seconds and second + SAMPLE_POINT + ROUNDING < time:
            yield second, shown
            second += 1
        shown = frame
    while shown is not None and second < video.seconds:
        yield second, shown
        second += 1


def pixels(video: Video, frame: av.VideoFrame) -> np.ndarray:
    """A frame as people see it, (height, width, 3) RGB uint8, as all of the video's are."""
    return in_shape(video, to_rgb(frame))


def in_shape(video: Video, rgb: np.ndarray) -> np.ndarray:
    """A picture at the size of the video: pixels may not be square, and streams change their size on the way."""
    if rgb.shape[:2] == (video.height, video.width):
        return rgb
    shrinks = rgb.shape[0] > video.height and rgb.shape[1] > video.width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(rgb, (video.width, video.height), interpolation=how)


def decoded(
    container: InputContainer, stream: VideoStream | AudioStream, *tracks: VideoStream | AudioStream | None
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """What can be decoded of a track; damaged packets are passed over.

    tracks: all that steady_packets is to keep together, those of `opened`.
    """
    for packet in steady_packets(container, *tracks):
        if packet.stream is not stream:
            continue
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def _timed(video: Video) -> Iterator[tuple[float, av.VideoFrame]]:
    """The frames of a video, each with the seconds from the first on at which it is shown."""
    with opened(video.path) as (container, stream, audio):
        stream.thread_type = "AUTO"
        first, still = None, video.ticks > 1
        for number, frame in enumerate(decoded(container, stream, stream, audio)):
            assert isinstance(frame, av.VideoFrame)
            time = number / float(video.fps)
            if video.timed and frame.time is not None:
                time = frame.time - video.origin
            first = first or frame
            if (frame.width, frame.height) != (first.width, first.height):
                video.add_note(f"The size of the pictures changes, first at {time:.1f} s: all are shown at the first.")
            still = still and _alike(first, frame)
            yield time, frame
        if still:
            video.add_note("The picture never changes: it is one picture under the whole sound.")


def _alike(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Whether two frames show the same but for what coding makes of it, by one in SPARSE samples of luma."""
    planes = [np.frombuffer(frame.planes[0], np.uint8)[::SPARSE].astype(int) for frame in (one, other)]  # type: ignore[call-overload]
    if len(planes[0]) != len(planes[1]):
        return False
    apart = np.abs(planes[0] - planes[1])
    return bool(apart.max() <= 24 and apart.mean() <= 1.5)


def _joined(joints: list[float], origin: float) -> str:
    places = ", ".join(f"{max(joint - origin, 0):.1f} s" for joint in joints[:5])
    return f"The file was joined of parts: its time stamps start again or leap at {places}; the parts follow in turn."


def _sound_beyond(heard: list[float], times: np.ndarray, last: float, notes: list[str]) -> float:
    """Note the sound that lies outside of the pictures; how long the last picture is shown, in seconds."""
    begin, end = heard
    if (before := times[0] - begin) > EARLY_SOUND:
        notes.append(f"The sound begins {before:.1f} s before the first picture: that part of it is left out.")
    if (beyond := end - times[-1] - last) > LATE_SOUND:
        if len(times) == 1:
            notes.append("There is but one picture: it is shown as long as the sound lasts.")
            return float(end - times[-1])
        notes.append(f"The sound goes on for {beyond:.1f} s after the last picture: that part of it gets no masks.")
    return last


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
