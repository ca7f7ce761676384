"""Open any video: its size, constant rate, length and audio track, and what is unusual about the file."""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from utils.cli import InputError
from utils.media_notes import color_notes, discontinuity_note
from utils.timestamps import ROUNDING, SAMPLE_POINT, are_in_decode_order, decode_frames, demux_continuous
from utils.video import count_missing_frames, open_media
from utils.video_frame import display_matrix, display_size, is_oblique, is_transposed
from utils.video_writer import limit_frame_rate

DEFAULT_FPS = Fraction(25)  # if neither the header nor the time stamps give a rate
MAX_GAP = 3600  # seconds between frames or audio blocks; a larger gap means damaged time stamps
MAX_FPS = 60  # for videos of a variable rate; constant rates are not limited
EARLY_AUDIO, LATE_AUDIO = 0.2, 1.0  # seconds before the first and after the last frame; more gives a note


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video file after opening it.

    Attributes:
        path: The file.
        height: Of the displayed frames: upright, with square pixels.
        width: Likewise.
        fps: The constant rate at which frames are read.
        num_frames: At that rate.
        start_time: Seconds on the file's clock at which the first frame is displayed; audio is read from there.
        has_timestamps: Whether the frames have time stamps.
        in_decode_order: Whether these are in the order of decoding, as in AVI (utils.timestamps).
        audio_rate: Hz; 0 without an audio track.
        channels: 1 or 2; 0 without an audio track.
        missing_frames: Frames that the header announces and the file lacks, as in an incomplete copy.
        notes: Unusual properties of the file, one sentence each; reading may add some.
    """

    path: Path
    height: int
    width: int
    fps: Fraction
    num_frames: int
    start_time: float
    has_timestamps: bool
    audio_rate: int
    channels: int
    in_decode_order: bool = False
    missing_frames: int = 0
    notes: list[str] = field(default_factory=list, compare=False)

    @property
    def duration(self) -> float:
        """Seconds."""
        return float(self.num_frames / self.fps)

    @property
    def num_seconds(self) -> int:
        """Number of seconds that have a frame; the last may be incomplete."""
        return self.second_of(self.num_frames - 1) + 1

    def second_of(self, index: int) -> int:
        """The second, from 0, to which a frame belongs."""
        return int(index / self.fps)

    def frame_index_per_second(self) -> list[int]:
        """The frame that represents each second: at 15/16 of it, else its first, else the last of the video."""
        sampled = (int((second + SAMPLE_POINT + ROUNDING) * self.fps) for second in range(self.num_seconds))
        return [min(max(index, math.ceil(s * self.fps)), self.num_frames - 1) for s, index in enumerate(sampled)]

    def add_note(self, note: str) -> None:
        """Add a note unless it is there already."""
        if note not in self.notes:
            self.notes.append(note)


def open_video(path: Path) -> VideoInfo:
    """Scan a file, decoding only its first frame. Raises InputError if it is missing or not a video."""
    discontinuities: list[float] = []
    with open_media(path) as (container, video, audio):
        frames, audio_span = _scan_packets(container, video, audio, discontinuities)
        fps = video.average_rate or video.guessed_rate or DEFAULT_FPS
        time_base = float(video.time_base or 0)
        missing = count_missing_frames(container, video, frames.stored, max(frames.stamps, default=None))
        in_decode_order = are_in_decode_order(video, frames.stamps)
        audio_rate, channels = (audio.rate, min(audio.channels, 2)) if audio else (0, 0)
        aspect = video.sample_aspect_ratio
    has_timestamps = len(frames.stamps) == frames.displayed
    times = np.sort(np.array(frames.stamps, float)) * time_base
    if not has_timestamps:
        times = np.arange(frames.displayed) / float(fps)
    last_duration = frames.last_duration * time_base if has_timestamps else 0.0
    if (gap := float(np.append(np.diff(times), last_duration).max())) > MAX_GAP:
        raise InputError(f"{path}: damaged, for it shows a frame for {gap / 3600:.0f} hours; obtain it again")
    start_time = float(times[0]) if len(times) else 0.0
    notes = [discontinuity_note(discontinuities, start_time)] if discontinuities else []
    if audio_span and has_timestamps and len(times):  # a damaged file may have no frame at all
        last_duration = max(last_duration, _compare_audio_span(audio_span, times, last_duration, notes))
    fps = max(limit_frame_rate(_choose_frame_rate(times, fps)), Fraction(1))
    span = float(times[-1]) - start_time if len(times) else 0.0
    num_frames = round(span * float(fps)) + max(1, round(last_duration * float(fps)))
    height, width = _inspect_first_frame(path, aspect, notes)
    return VideoInfo(
        path,
        height,
        width,
        fps,
        num_frames,
        start_time,
        has_timestamps,
        audio_rate,
        channels,
        in_decode_order and has_timestamps,
        missing,
        notes,
    )


@dataclass
class _FramePackets:
    """The packets of a video stream: all stored ones, those displayed, and the time stamps of the latter."""

    stored: int = 0
    displayed: int = 0
    stamps: list[int] = field(default_factory=list)
    last_duration: int = 0  # of the latest frame, in the stream's time base


def _scan_packets(
    container: InputContainer, video: VideoStream, audio: AudioStream | None, discontinuities: list[float]
) -> tuple[_FramePackets, tuple[float, float] | None]:
    """Count the frames, and find the start and end of the audio in seconds."""
    frames, audio_span, latest = _FramePackets(), None, -float("inf")
    for packet in demux_continuous(container, video, audio, discontinuities=discontinuities):
        if packet.stream is not video:
            if packet.pts is not None and packet.size and not packet.is_discard:
                begin = float(packet.pts * packet.time_base)
                end = begin + float((packet.duration or 0) * packet.time_base)
                audio_span = (min(begin, audio_span[0]), max(end, audio_span[1])) if audio_span else (begin, end)
            continue
        frames.stored += packet.size > 0
        if packet.size and not packet.is_discard:  # edit lists discard frames
            frames.displayed += 1
            if packet.pts is not None:
                frames.stamps.append(packet.pts)
                if packet.pts > latest:
                    latest, frames.last_duration = packet.pts, packet.duration or 0
    return frames, audio_span


def _inspect_first_frame(path: Path, aspect: Fraction | None, notes: list[str]) -> tuple[int, int]:
    """Decode the first frame; returns the height and width at which it is displayed, and adds notes."""
    with open_media(path) as (container, video, audio):
        frame = next(decode_frames(container, video, video, audio), None)
        if not isinstance(frame, av.VideoFrame):
            raise InputError(f"{path}: no frame could be decoded; obtain it again")
        matrix = display_matrix(frame)
        height, width = display_size(frame.height, frame.width, aspect)
        if is_transposed(matrix):
            height, width = width, height
        if is_oblique(matrix):
            notes.append("The file asks for a rotation by other than quarter turns, which is ignored.")
        notes += color_notes(frame)
    return height, width


def _compare_audio_span(
    audio_span: tuple[float, float], times: np.ndarray, last_duration: float, notes: list[str]
) -> float:
    """Note audio outside the frames' time; returns the seconds for which the last frame is displayed."""
    begin, end = audio_span
    if (early := times[0] - begin) > EARLY_AUDIO:
        notes.append(f"The audio begins {early:.1f} s before the first frame: that part is left out.")
    if (late := end - times[-1] - last_duration) > LATE_AUDIO:
        if len(times) == 1:
            notes.append("There is only one frame: it is displayed as long as the audio lasts.")
            return float(end - times[-1])
        notes.append(f"The audio continues for {late:.1f} s after the last frame: that part gets no masks.")
    return last_duration


def _choose_frame_rate(times: np.ndarray, stated: Fraction) -> Fraction:
    """A constant rate for frames at the given seconds, sorted: the stated one if they agree with it."""
    steps = np.diff(times)
    if len(steps) == 0 or times[-1] == times[0]:
        return stated
    mean, short = float(steps.mean()), float(np.percentile(steps, 10))
    if short > 0.9 * mean:  # a constant rate, up to rounding to milliseconds
        return stated if abs(float(stated) * mean - 1) < 0.03 else Fraction(1 / mean)
    rate = min(1 / short, MAX_FPS) if short > 0 else MAX_FPS
    return Fraction(round(rate)) if abs(round(rate) / rate - 1) < 0.02 else Fraction(rate)
