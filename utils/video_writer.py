"""Write mp4 videos with H.264 and AAC, which all browsers play. FFmpeg through PyAV."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from utils.files import atomic_path

MAX_DENOMINATOR = 1001  # of a frame rate: keeps NTSC's 30000/1001 exactly; 29.97 becomes 2997/100
# With the macroblock tree, equal frames do not always give equal bytes.
X264 = {"preset": "veryfast", "x264-params": "mbtree=0"}
AAC = {"aac_coder": "fast"}
BT709, STUDIO_RANGE = 1, 1  # FFmpeg's numbers of the color space and range of all files written


def limit_frame_rate(fps: Fraction | float) -> Fraction:
    """Round a frame rate to a fraction with a small denominator, as containers require."""
    return Fraction(fps).limit_denominator(MAX_DENOMINATOR)


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: Fraction | float,
    samples: np.ndarray | Iterable[np.ndarray] | None = None,
    sample_rate: int = 44_100,
    quality: int = 18,
) -> None:
    """Encode frames, and optionally audio, as an mp4 file, atomically.

    Colors are BT.709 in studio range, and tagged as such. Encoding uses one thread, and equal input gives equal bytes.

    Args:
        path: The file.
        frames: (H, W, 3) RGB uint8, all of one size, consumed one at a time. An odd height or width is made even by
            repeating the last row or column.
        fps: Frames per second.
        samples: (n,) or (n, channels), one or two channels, int16 or floats in [-1, 1] (clipped), or an iterable of
            such blocks, consumed along with the frames; None for a video without audio.
        sample_rate: Hz.
        quality: x264's constant rate factor, from 0 (lossless) to 51; 18 is visually lossless.

    Raises:
        ValueError: There are no frames, or frames or samples have another shape or type.
    """
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    rate = limit_frame_rate(fps)
    buffer = None if samples is None else _AudioBuffer([samples] if isinstance(samples, np.ndarray) else samples)
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
        if buffer is not None:
            layout = "mono" if buffer.channels == 1 else "stereo"
            audio = container.add_stream("aac", rate=sample_rate, layout=layout, options=AAC)
        written, converter = 0, VideoReformatter()
        # Audio is interleaved with the frames, so that the muxer does not have to buffer a long video.
        for count, frame in enumerate(chain([first], remaining), 1):
            if frame.shape != first.shape or frame.dtype != np.uint8:
                raise ValueError(f"{path}: frame {count} is {frame.dtype} {frame.shape}, not uint8 {first.shape}")
            container.mux(video.encode(_video_frame(frame, converter)))
            if buffer is not None:
                until = int(count / rate * sample_rate)
                container.mux(_encode_audio(audio, buffer.take(until - written), written))
                written = until
        container.mux(video.encode(None))
        if buffer is not None:
            while (rest := buffer.take(sample_rate)).shape[1]:
                container.mux(_encode_audio(audio, rest, written))
                written += rest.shape[1]
            container.mux(audio.encode(None))


class _AudioBuffer:
    """Splits blocks of samples anew; channels is 1 or 2."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = map(_to_float, blocks)
        self._buffer = next(self._blocks, np.zeros((1, 0), np.float32))
        self.channels = len(self._buffer)

    def take(self, count: int) -> np.ndarray:
        """The next samples, (channels, count); fewer, then none, at the end."""
        parts, remaining = [], count
        while remaining > 0:
            if self._buffer.shape[1] == 0 and (block := next(self._blocks, None)) is not None:
                self._buffer = block
            elif self._buffer.shape[1] == 0:
                break
            parts.append(self._buffer[:, :remaining])
            self._buffer = self._buffer[:, remaining:]
            remaining -= parts[-1].shape[1]
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
    """Convert samples to float32 (channels, n), FFmpeg's planar layout."""
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] not in (1, 2)):
        raise ValueError(f"samples have shape {samples.shape}; expected (n,), (n, 1) or (n, 2)")
    floats = samples / 32768 if samples.dtype == np.int16 else samples
    return np.atleast_2d(floats.astype(np.float32).clip(-1, 1).T)


def _encode_audio(stream: av.AudioStream, samples: np.ndarray, start: int) -> list[av.Packet]:
    """Encode (channels, n) samples; `start` is the index of the first in the whole audio."""
    if samples.shape[1] == 0:
        return []  # the audio ends before the frames
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = stream.rate, start, Fraction(1, stream.rate)
    return stream.encode(frame)
