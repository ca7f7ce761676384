"""The sound of any video in step with its frames, block by block, and second by second as the study hears it."""

from collections.abc import Iterator

import av
import numpy as np
import soxr

from utils.audio import MAX_AUDIO_SECONDS, SAMPLE_RATE, quantize_int16
from utils.audio_track import build_audio_graph, pull_blocks, to_int16
from utils.video import open_media
from utils.video_stream import MAX_GAP, VideoInfo, decode_frames

SILENCE_PEAK = 1 / 32768  # of full scale: the last bit of 16, which codecs leave behind in silence
MAX_FILL = 60  # seconds, beyond which a hole is filled piece by piece; FFmpeg fills it in one
CANCELLED = 0.01  # level of the channels' average to their own, below which they are in antiphase
FADE_SAMPLES = 800  # samples, 50 ms: what a sound spreads beyond its beginning and end, coded and resampled


def read_audio(video: VideoInfo, rate: int) -> Iterator[np.ndarray]:
    """The sound from the first frame on, at `rate` Hz: blocks of int16 (n, channels), one or two channels.

    A track that starts late, or has holes of a tenth of a second or more, is silent there. Nothing without a track.
    Left out is what lies beyond a hole of MAX_GAP seconds, or MAX_AUDIO_SECONDS seconds behind the last frame.
    """
    return _read(video, rate, "s16")


def _read(video: VideoInfo, rate: int, sample_format: str) -> Iterator[np.ndarray]:
    """`read_audio` in one of FFmpeg's sample formats."""
    if not video.audio_rate:
        return
    graph, kind, given = None, None, 0
    with open_media(video.path) as (container, pictures, audio):
        assert audio is not None
        for frame in decode_frames(container, audio, pictures, audio):
            assert isinstance(frame, av.AudioFrame)
            at = (frame.time or 0.0) - video.start_time
            if at - given / rate > MAX_GAP or frame.samples > MAX_AUDIO_SECONDS * frame.sample_rate:
                continue
            if given / rate > video.duration + MAX_AUDIO_SECONDS:
                break
            if at - given / rate > MAX_FILL:
                for block in pull_blocks(graph):
                    given += len(block)
                    yield block
                for _ in range(int(at - given / rate)):
                    given += rate
                    yield np.zeros((rate, video.channels), np.int16 if sample_format == "s16" else np.float32)
                kind = None
            if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                for block in pull_blocks(graph):  # of what was before: broadcasts change between programmes
                    given += len(block)
                    yield block
                layout = "mono" if video.channels == 1 else "stereo"
                begin = round((video.start_time + given / rate) * frame.sample_rate)
                graph = build_audio_graph(
                    frame,
                    ("aresample", f"{rate}:async=1:first_pts={begin}"),
                    ("aformat", f"sample_fmts={sample_format}:channel_layouts={layout}"),
                )
            assert graph is not None
            graph.push(frame)
            for block in pull_blocks(graph, more=True):
                given += len(block)
                yield block
        yield from pull_blocks(graph)


def read_audio_per_second(
    video: VideoInfo, sample_rate: int, *, int16_round_trip: bool = False
) -> Iterator[np.ndarray | None]:
    """The sound of each second as the study hears it: float32 (sample_rate,) in [-1, 1], or None where it is silent.

    To 16 kHz and 16 bits, channels averaged, then to sample_rate: what corrected preprocessing writes (utils.audio_track)
    and utils.audio.load_clip_waveform reads. Only a second whose channels cancel is the left one's alone.
    A sound that ends within a second gives the last sample_rate samples up to its end, and repeats if it has not as
    many; but if it covers less than half of what the video shows in that second, the second is silent. So are those
    that follow, which are left out.
    """
    if not video.audio_rate:
        return
    lower = soxr.ResampleStream(video.audio_rate, SAMPLE_RATE, video.channels, dtype="float32", quality="HQ")
    resampler = soxr.ResampleStream(SAMPLE_RATE, sample_rate, 1, dtype="float32", quality="HQ")
    heard, ready, before = np.zeros((0, video.channels), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32)
    silent: list[bool] = []
    begun = 0  # seconds
    for block, last in _with_last(_read(video, video.audio_rate, "flt")):
        heard = np.concatenate([heard, to_int16(lower.resample_chunk(block, last=last)).astype(np.float32) / 32768])
        while len(heard) >= SAMPLE_RATE or (last and len(heard)):
            part, heard = heard[:SAMPLE_RATE], heard[SAMPLE_RATE:]
            covered = len(part) >= 0.5 * min(1.0, video.duration - begun) * SAMPLE_RATE
            inner = part[FADE_SAMPLES:-FADE_SAMPLES] if len(part) > 4 * FADE_SAMPLES else part
            silent.append(not covered or bool(np.abs(inner).max() <= SILENCE_PEAK))
            mono = part.mean(axis=1)
            if not silent[-1] and np.square(mono).mean() < CANCELLED**2 * np.square(part).mean():
                mono = np.ascontiguousarray(part[:, 0])
                video.add_note(
                    f"The two channels cancel each other, first in second {begun + 1}. Where they do, the left one is "
                    "used alone, for their average is silent."
                )
            ready = np.concatenate([ready, resampler.resample_chunk(mono)])
            begun += 1
        if last:
            ready = np.concatenate([ready, resampler.resample_chunk(np.zeros(0, np.float32), last=True)])
        while silent and (len(ready) >= sample_rate or (last and len(ready))):
            second, ready = ready[:sample_rate], ready[sample_rate:]
            if len(second) < sample_rate:
                second = np.resize(np.concatenate([before, second])[-sample_rate:], sample_rate)
            before = second
            yield None if silent.pop(0) else quantize_int16(second) if int16_round_trip else second


def _with_last(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each block, and whether it is the last."""
    held = next(blocks, None)
    while held is not None:
        following = next(blocks, None)
        yield held, following is None
        held = following
