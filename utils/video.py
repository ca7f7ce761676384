"""Read a clip in one pass: five frames, one per second, and the 16 kHz audio. FFmpeg through PyAV."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from utils.audio_track import decode_audio
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.files import MAX_PIXELS
from utils.media_notes import clip_notes
from utils.paths import describe_siblings
from utils.timestamps import (
    PacketDecoder,
    are_in_decode_order,
    demux_continuous,
    displayed_frames,
    published_frames,
)
from utils.video_frame import resize_frame, to_rgb
from utils.words import counted

# Formats that refer to other files or hosts.
PLAYLIST_FORMATS = ("concat", "dash", "hls", "imf", "rtsp", "sap", "sdp", "vobsub")


@dataclass
class ClipMedia:
    """The frames and audio of a clip.

    Attributes:
        frames: Five (224, 224, 3) RGB uint8 frames, one per second.
        samples: int16 (n, channels) at 16 kHz, one or two channels; see utils.audio_track.
        notes: What is unusual about it, in sentences.
    """

    frames: list[np.ndarray]
    samples: np.ndarray
    notes: list[str] = field(default_factory=list)


def read_clip(path: Path, fidelity: Fidelity = "corrected", seconds: int = 5) -> ClipMedia:
    """Decode a frame of each second and all audio of a clip, opening the file once.

    The frame of a second is the one displayed at 15/16 of it; "published" counts frames at a constant rate instead
    (utils.timestamps). Frames are resized to 224×224 (bilinear, without keeping the aspect ratio); a video that ends
    early repeats its last frame. Only frames that the selected ones depend on are decoded, and only the selected ones
    are converted to RGB.

    Raises:
        InputError: The file is missing, not a video, truncated or damaged, or has no audio.
    """
    with _open_clip(path) as (container, video, audio):
        return _decode(path, container, video, audio, fidelity, seconds)


def check_clip(path: Path) -> None:
    """Check a clip without decoding it. Raises InputError as `read_clip` does, except for damage inside a packet."""
    with _open_clip(path) as (container, video, _):
        _check_complete(path, container, video, container.demux(video))


@contextmanager
def open_media(path: Path) -> Iterator[tuple[InputContainer, VideoStream, AudioStream | None]]:
    """Open a video file.

    Yields:
        The container, its video stream, and its audio stream if it has one.

    Raises:
        InputError: The file is missing or not a video, or FFmpeg fails in the block.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{describe_siblings(path)}")
    try:
        # Only local files: neither the path nor the content of the file may cause network access.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
            video, audio = container.streams.best("video"), container.streams.best("audio")
            format_name = container.format.name
            # FFmpeg also opens images, text files and the cover images of audio files.
            if format_name in ("tty", "image2") or format_name.endswith("_pipe"):
                raise InputError(f"{path}: not a video (FFmpeg detects {format_name})")
            if not isinstance(video, VideoStream) or video.disposition & Disposition.attached_pic:
                raise InputError(f"{path}: has no video track")
            if not video.codec_context:
                raise InputError(f"{path}: its video track has an unknown codec; obtain it again")
            if format_name in PLAYLIST_FORMATS:
                raise InputError(f"{path}: a list of other files ({format_name}), not a video")
            if video.codec_context.width * video.codec_context.height > MAX_PIXELS:
                raise InputError(f"{path}: is too large ({video.codec_context.width}×{video.codec_context.height})")
            video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # for videos whose frame size changes
            yield container, video, audio if isinstance(audio, AudioStream) and audio.codec_context else None
    except av.FFmpegError as error:
        raise InputError(f"{path}: not a readable video ({error.strerror}); obtain it again") from error


@contextmanager
def _open_clip(path: Path) -> Iterator[tuple[InputContainer, VideoStream, AudioStream]]:
    with open_media(path) as (container, video, audio):
        if audio is None:
            raise InputError(f"{path}: has no sound, which audio-visual segmentation needs")
        if not video.average_rate:
            raise InputError(f"{path}: has no frame rate")
        if _is_truncated_mp4(path):
            raise InputError(f"{path}: truncated; obtain it again")
        yield container, video, audio


def _is_truncated_mp4(path: Path) -> bool:
    """Whether a box of an mp4 ends beyond the file; FFmpeg reads such files without an error."""
    file_size, offset = path.stat().st_size, 0
    with path.open("rb") as file:
        while offset + 8 <= file_size:
            file.seek(offset)
            header = file.read(16)
            box_size, box_type = int.from_bytes(header[:4], "big"), header[4:8]
            if box_size == 1:
                box_size = int.from_bytes(header[8:], "big")
            if box_size < 8 or (offset == 0 and box_type != b"ftyp"):  # up to the end of the file, or not an mp4
                return False
            if offset + box_size > file_size:
                return box_type in (b"mdat", b"moov", b"moof")  # unknown types may be trailing garbage
            offset += box_size
    return False


def count_missing_frames(container: InputContainer, video: VideoStream, present: int, last_pts: int | None) -> int:
    """The number of frames that the header announces and the file lacks.

    Args:
        container: The file.
        video: Its video stream, whose number of frames is 0 if the header does not state it.
        present: The number of frames in the file.
        last_pts: The highest of their time stamps.
    """
    if container.format.name == "avi" and last_pts is not None:
        present = max(present, last_pts + 1)  # AVI headers also count frames that the encoder dropped
    return max(video.frames - present, 0)


def _check_complete(path: Path, container: InputContainer, video: VideoStream, packets: Iterable[av.Packet]) -> None:
    stamps = [packet.pts for packet in packets if packet.size]
    last_pts = max((stamp for stamp in stamps if stamp is not None), default=None)
    if missing := count_missing_frames(container, video, len(stamps), last_pts):
        present = video.frames - missing
        raise InputError(f"{path}: truncated ({present} of {counted(video.frames, 'frame')} present); obtain it again")


def _decode(
    path: Path, container: InputContainer, video: VideoStream, audio: AudioStream, fidelity: Fidelity, seconds: int
) -> ClipMedia:
    video_packets: list[av.Packet] = []
    audio_packets: list[av.Packet] = []
    discontinuities: list[float] = []
    for packet in demux_continuous(container, video, audio, discontinuities=discontinuities):
        (video_packets if packet.stream is video else audio_packets).append(packet)
    _check_complete(path, container, video, video_packets)
    displayed = [packet.pts for packet in video_packets if packet.size and not packet.is_discard]
    stamps = [stamp for stamp in displayed if stamp is not None]
    if not stamps:
        raise InputError(f"{path}: no frame could be decoded")
    in_decode_order = are_in_decode_order(video, displayed)
    video.codec_context.thread_count = 1  # clips are decoded in parallel processes
    times = np.sort(stamps) * float(video.time_base or 0)
    samples = decode_audio(path, audio_packets, fidelity, start=times[0], duration=container.duration)
    if fidelity == "published":
        output = _avi_output_times(video, video_packets) if container.format.name == "avi" else times
        indices = published_frames(video, output - (container.start_time or 0) / 1_000_000, seconds)
    else:
        indices = displayed_frames(times - times[0], seconds)
    frames = _decode_frames(path, video, video_packets, np.sort(stamps)[indices].tolist(), in_decode_order)
    notes = clip_notes(frames, samples, discontinuities, times[0], fidelity)
    return ClipMedia([resize_frame(to_rgb(frame, fidelity)) for frame in frames], samples, notes)


def _avi_output_times(video: VideoStream, packets: list[av.Packet]) -> np.ndarray:
    """The seconds at which the original's ffmpeg 4.2 outputs the frames of an AVI file, whose packets it counts.

    A frame comes out with the packet that the decoder needs to know that it is next: with B-frames, a later one.
    """
    codec, stored = video.codec_context, [packet for packet in packets if packet.size]
    delay = next((number for number, packet in enumerate(stored) if packet.decode()), 0)
    codec.flush_buffers()
    counts = [number if packet.dts is None else packet.dts for number, packet in enumerate(stored)]
    counts = counts[delay:] + [counts[-1] + number for number in range(1, delay + 1)]
    return np.array(counts) * float(video.time_base or 0)


def _decode_frames(
    path: Path, video: VideoStream, packets: list[av.Packet], stamps: list[int], in_decode_order: bool
) -> list[av.VideoFrame]:
    """The frames with the given time stamps. Other frames are skipped unless they are reference frames.

    With time stamps in the order of decoding, no frame is skipped.
    """
    codec, decoder = video.codec_context, PacketDecoder(in_decode_order)
    decoded: dict[int, av.VideoFrame] = {}
    for packet in packets:
        needs_frame = in_decode_order or packet.pts is None or packet.pts in stamps
        codec.skip_frame = "DEFAULT" if needs_frame else "NONREF"
        for frame in decoder.decode(packet):
            assert isinstance(frame, av.VideoFrame)
            if frame.pts is not None and frame.pts in stamps:
                decoded[frame.pts] = frame
        if len(decoded) == len(set(stamps)):
            break
    if len(decoded) < len(set(stamps)):
        raise InputError(f"{path}: damaged, a frame could not be decoded; obtain it again")
    return [decoded[stamp] for stamp in stamps]
