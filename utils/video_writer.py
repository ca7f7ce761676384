"""Write a video with sound: H.264 and AAC in an mp4 that every browser plays. FFmpeg through PyAV."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from utils.files import atomic_path

MAX_DENOMINATOR = 1001  # of a frame rate: NTSC's 30000/1001 is kept exactly, 29.97 becomes 2997/100
# Without the macroblock tree the same frames give the same bytes; with it they do so only nearly always.
X264 = {"preset": "veryfast", "x264-params": "mbtree=0"}
AAC = {"aac_coder": "fast"}
BT709, STUDIO_RANGE = 1, 1  # FFmpeg's numbers of the colors that are written and tagged, whatever the size


def limit_frame_rate(fps: Fraction | float) -> Fraction:
    """The rate that a video written at `fps` has: a plain fraction, as containers want it."""
    return Fraction(fps).limit_denominator(MAX_DENOMINATOR)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    samples: np.ndarray | Iterable[np.ndarray] | None = None,
    sample_rate: int = 44_100,
    quality: int = 18,
) -> None:
    """Encode frames, and a sound if there is one, as an mp4 that is either whole or absent.

    frames: (H, W, 3) RGB uint8, all of one size, taken one at a time; yuv420p halves the chroma, so an odd
    height or width is made even by repeating the last row or column.
    fps: frames a second. samples: (n,) or (n, channels) at sample_rate Hz, one or two channels, int16 or
    floats in [-1, 1] (clipped), or blocks of such samples, taken as the frames come; None for a silent video.
    The colors are BT.709 in studio range, and the file says so: players show the pixels that were given.
    quality: x264's constant rate factor, 0 (lossless) to 51; 18 is visually clean.
    One thread encodes, and the same input gives the same bytes: callers work on many clips in parallel processes.
    Raises ValueError without frames, and for frames or samples of another shape or type.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    rate = limit_frame_rate(fps)
    sound = None if samples is None else _AudioBuffer([samples] if isinstance(samples, np.ndarray) else samples)
    height, width = first.shape[:2]
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        video = container.add_stream("libx264", rate=rate, options=X264 | {"crf": str(quality)})
        video.height, video.width, video.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        codec = video.codec_context
        codec.thread_count = 1
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = STUDIO_RANGE
        if sound is not None:
            layout = "mono" if sound.channels == 1 else "stereo"
            audio = container.add_stream("aac", rate=sample_rate, layout=layout, options=AAC)
        written, converter = 0, VideoReformatter()
        # The sound goes in beside the frames, so that the muxer need not hold back a long video.
        for count, frame in enumerate(chain([first], remaining), 1):
            if frame.shape != first.shape or frame.dtype != np.uint8:
                raise ValueError(f"{path}: frame {count} is {frame.dtype} {frame.shape}, not uint8 {first.shape}")
            container.mux(video.encode(_video_frame(frame, converter)))
            if sound is not None:
                until = int(count / rate * sample_rate)
                container.mux(_audio_packets(audio, sound.take(until - written), written))
                written = until
        container.mux(video.encode(None))
        if sound is not None:
            while (rest := sound.take(sample_rate)).shape[1]:
                container.mux(_audio_packets(audio, rest, written))
                written += rest.shape[1]
            container.mux(audio.encode(None))


class _AudioBuffer:
    """Blocks of samples, handed out in other lengths; channels is 1 or 2."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = map(_to_float, blocks)
        self._held = next(self._blocks, np.zeros((1, 0), np.float32))
        self.channels = len(self._held)

    def take(self, count: int) -> np.ndarray:
        """The next samples, (channels, count); fewer, then none, when the sound has ended."""
        parts, lacking = [], count
        while lacking > 0:
            if self._held.shape[1] == 0 and (following := next(self._blocks, None)) is not None:
                self._held = following
            elif self._held.shape[1] == 0:
                break
            parts.append(self._held[:, :lacking])
            self._held = self._held[:, lacking:]
            lacking -= parts[-1].shape[1]
        return np.concatenate(parts, axis=1) if parts else np.zeros((self.channels, 0), np.float32)


def _video_frame(frame: np.ndarray, converter: VideoReformatter) -> av.VideoFrame:
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return converter.reformat(
        rgb, format="yuv420p", dst_colorspace=BT709, dst_color_range=STUDIO_RANGE, interpolation="BICUBIC"
    )


def _to_float(samples: np.ndarray) -> np.ndarray:
    """(channels, n) float32, FFmpeg's planar order."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] not in (1, 2)):
        raise ValueError(f"samples have shape {samples.shape}; expected (n,), (n, 1) or (n, 2)")
    floats = samples / 32768 if samples.dtype == np.int16 else samples
    return np.atleast_2d(floats.astype(np.float32).clip(-1, 1).T)


def _audio_packets(stream: av.AudioStream, piece: np.ndarray, start: int) -> list[av.Packet]:
    """Encode (channels, n) samples, of which the first is sample number `start` of the sound."""
    if piece.shape[1] == 0:
        return []  # the sound has ended before the frames
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, start, Fraction(1, stream.rate)
    return stream.encode(frame)
