"""Read a clip in one pass: the five frames of the study and the 16 kHz sound. FFmpeg through PyAV."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.files import LARGEST
from utils.picture import study_size, to_rgb
from utils.places import beside
from utils.raw_audio import decode_audio
from utils.timeline import counted_frames, frames_shown, steady_packets

LISTS = ("concat", "dash", "hls", "imf", "rtsp", "sap", "sdp", "vobsub")  # formats that name other files or hosts


@dataclass
class ClipMedia:
    """What preprocessing needs of a video."""

    frames: list[np.ndarray]  # five (224, 224, 3) RGB uint8 frames, one a second
    samples: np.ndarray  # int16 (n, channels) at 16 kHz, one or two channels; see utils.raw_audio


def read_clip(path: Path, fidelity: Fidelity = "corrected") -> ClipMedia:
    """Decode the five frames and the whole sound of a clip, opening the file once.

    The frame of a second is the one on the screen at 15/16 of it; `published` counts frames at a constant rate
    (utils.timeline). Frames are resized plainly to 224×224 (bilinear, aspect not kept); a video that ends early repeats
    its last frame. Only what the chosen frames depend on is decoded, and only they are converted to RGB.
    Raises InputError, in one line, for a missing file, a file that is no video or that is truncated, and for
    a clip without sound.
    """
    with _opened(path) as (container, video, audio):
        return _decode(path, container, video, audio, fidelity)


def probe(path: Path) -> None:
    """Read a clip without decoding it. Raises InputError as `read_clip` does, but for damage inside a packet."""
    with _opened(path) as (container, video, _):
        _check_complete(path, container, video, container.demux(video))


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream, AudioStream | None]]:
    """A file, its video track, and its sound track if it has one. Raises InputError for what is no video."""
    if not path.is_file():
        raise InputError(f"{path}: no such file{beside(path)}")
    try:
        # By this protocol alone: neither the path nor what the file says may lead to a host.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
            kind, video, audio = container.format.name, container.streams.best("video"), container.streams.best("audio")
            # FFmpeg also opens pictures, text (as a terminal shows it) and the covers of songs.
            if kind in ("tty", "image2") or kind.endswith("_pipe"):
                raise InputError(f"{path}: not a video (FFmpeg takes it for {kind})")
            if not isinstance(video, VideoStream) or video.disposition & Disposition.attached_pic:
                raise InputError(f"{path}: has no video track")
            if not video.codec_context:
                raise InputError(f"{path}: its video track is of an unknown codec; obtain it again")
            if kind in LISTS:
                raise InputError(f"{path}: a list of other files ({kind}), not a video")
            if video.codec_context.width * video.codec_context.height > LARGEST:
                raise InputError(f"{path}: has pictures of {video.codec_context.width}×{video.codec_context.height}")
            video.codec_context.options = {"max_pixels": str(LARGEST)}  # for those that change their size on the way
            yield container, video, audio if isinstance(audio, AudioStream) and audio.codec_context else None
    except av.FFmpegError as error:
        raise InputError(f"{path}: not a readable video ({error.strerror}); obtain it again") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream, AudioStream]]:
    with opened(path) as (container, video, audio):
        if audio is None:
            raise InputError(f"{path}: has no sound, which this task cannot do without")
        if not video.average_rate:
            raise InputError(f"{path}: does not say its frame rate")
        if _lacks_its_end(path):
            raise InputError(f"{path}: truncated; obtain it again")
        yield container, video, audio


def _lacks_its_end(path: Path) -> bool:
    """Whether the boxes of an mp4 announce more than is there; FFmpeg would take what is left for all."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 8 <= size:
            file.seek(place)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            if length < 8 or (place == 0 and kind != b"ftyp"):  # up to the end, or no mp4
                return False
            if place + length > size:
                return kind in (b"mdat", b"moov", b"moof")  # after which there may be anything
            place += length
    return False


def lost_frames(container: InputContainer, video: VideoStream, there: int, latest: int | None) -> int:
    """How many frames the file says it has and lacks; 0 where it does not say.

    there: frames found. latest: the highest of their time stamps.
    """
    if container.format.name == "avi" and latest is not None:
        there = max(there, latest + 1)  # it counts the places of frames that its encoder dropped, too
    return max(video.frames - there, 0)


def _check_complete(path: Path, container: InputContainer, video: VideoStream, packets: Iterable[av.Packet]) -> None:
    stamps = [packet.pts for packet in packets if packet.size]
    latest = max((stamp for stamp in stamps if stamp is not None), default=None)
    if lost := lost_frames(container, video, len(stamps), latest):
        there = video.frames - lost
        raise InputError(f"{path}: truncated ({there} of {video.frames} frames are there); obtain it again")


def _decode(
    path: Path, container: InputContainer, video: VideoStream, audio: AudioStream, fidelity: Fidelity
) -> ClipMedia:
    pictures: list[av.Packet] = []
    sounds: list[av.Packet] = []
    for packet in steady_packets(container, video, audio):
        (pictures if packet.stream is video else sounds).append(packet)
    _check_complete(path, container, video, pictures)
    stamps = [packet.pts for packet in pictures if packet.size and packet.pts is not None and not packet.is_discard]
    if not stamps:
        raise InputError(f"{path}: no frame could be decoded")
    times = np.sort(stamps) * float(video.time_base or 0)
    samples = decode_audio(path, sounds, fidelity, start=times[0], duration=container.duration)
    if fidelity == "published":
        wanted = counted_frames(video, times - (container.start_time or 0) / 1_000_000)
    else:
        wanted = frames_shown(times - times[0])
    chosen = _choose(path, video, pictures, np.sort(stamps)[wanted].tolist())
    return ClipMedia([study_size(to_rgb(frame, fidelity)) for frame in chosen], samples)


def _choose(path: Path, video: VideoStream, packets: list[av.Packet], times: list[int]) -> list[av.VideoFrame]:
    """The frames of the given time stamps.

    Frames that no other refers to, which encoders make of up to half, are decoded only where they are wanted.
    """
    codec = video.codec_context
    codec.thread_count = 1  # clips are decoded in parallel, one core each
    found: dict[int, av.VideoFrame] = {}
    for packet in packets:
        codec.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in times else "NONREF"
        for frame in packet.decode():
            assert isinstance(frame, av.VideoFrame)
            if frame.pts is not None and frame.pts in times:
                found[frame.pts] = frame
        if len(found) == len(set(times)):
            break
    if len(found) < len(set(times)):
        raise InputError(f"{path}: damaged, a frame could not be decoded; obtain it again")
    return [found[time] for time in times]
