"""Videos of every kind, made with PyAV, whose frames tell their numbers."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

RATE = 44_100


def moving(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frame n is grey of level 20 + 3 (n % 75)."""
    return [np.full((height, width, 3), 20 + 3 * (n % 75), np.uint8) for n in range(count)]


def level(rgb: np.ndarray) -> float:
    """Which frame of `moving` this is, seen on its right quarter."""
    return (float(rgb[:, 3 * rgb.shape[1] // 4 :].mean()) - 20) / 3


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave] * channels, axis=1)


def mux(
    path: Path,
    codec: str,
    stamps: Sequence[int],
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    start: float = 0.0,
    rotation: int = 0,
) -> Path:
    """Write the frames of `moving` at the given milliseconds, and stereo sound that starts at `start` seconds."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt, video.gop_size = 64, 48, "yuv420p", 10
        video.codec_context.time_base = video.time_base = Fraction(1, 1000) if codec != "mpeg4" else Fraction(1, 25)
        video.bit_rate = 4_000_000
        if rotation:
            video.set_display_rotation(rotation)
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=48_000, layout="stereo")
        for frame, stamp in zip(moving(len(stamps)), stamps, strict=True):
            frame[:12, :32] = 255 if rotation else frame[0, 0]  # the upper left corner, before it is turned
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if codec != "mpeg4":  # which counts frames
                picture.pts, picture.time_base = stamp, Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound is not None:
            assert isinstance(audio, AudioStream)
            size = audio.frame_size or 1024
            resampler = av.AudioResampler(audio.format.name, "stereo", 48_000)
            for begin in range(0, len(sound), size):
                piece = np.ascontiguousarray(sound[begin : begin + size].T.astype(np.float32))
                block = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
                block.sample_rate, block.time_base = 48_000, Fraction(1, 48_000)
                block.pts = round(start * 48_000) + begin
                for converted in resampler.resample(block):
                    container.mux(audio.encode(converted))
            container.mux(audio.encode(None))
    return path


def chirps(samples: int, channels: int) -> np.ndarray:
    """int16 (samples, channels): sawtooths that rise through all frequencies, the same on every machine."""
    at = np.arange(samples, dtype=np.int64)[:, None]
    return ((at * at // (40 + 17 * np.arange(channels))) % 48_000 - 24_000).astype(np.int16)


def numbered(samples: int) -> np.ndarray:
    """int16 (samples, 2) that tell their place: it is left + 16 384 · right."""
    at = np.arange(samples)
    return np.stack([at % 16_384, at // 16_384], axis=1).astype(np.int16)


def pcm_video(
    path: Path, samples: np.ndarray, rate: int, seconds: float, codec: str = "pcm_s16le", layout: str = ""
) -> Path:
    """Write int16 samples (n, channels) without loss, under so many seconds of grey pictures at 10 a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        layout = layout or {1: "mono", 2: "stereo"}[samples.shape[1]]
        audio = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(audio, AudioStream)
        for frame in moving(round(10 * seconds)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        # Floats hold 16 bits exactly, so the conversion loses nothing either.
        resampler = av.AudioResampler(audio.format.name, layout, rate)
        for begin in range(0, len(samples), 1024):
            piece = np.ascontiguousarray(samples[begin : begin + 1024]).reshape(1, -1)
            block = av.AudioFrame.from_ndarray(piece, format="s16", layout=layout)
            block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), begin
            for converted in resampler.resample(block):
                container.mux(audio.encode(converted))
        container.mux(audio.encode(None))
    return path
