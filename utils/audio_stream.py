"""Read the audio of a video in step with its frames: as a stream, or second by second as the encoders take it."""

from collections.abc import Iterator

import av
import numpy as np
import soxr  # librosa has no streaming resampler

from utils.audio import MAX_AUDIO_SECONDS, SAMPLE_RATE, quantize_int16
from utils.audio_track import build_audio_graph, pull_blocks, to_int16
from utils.media_notes import channels_cancel
from utils.timestamps import decode_frames
from utils.video import open_media
from utils.video_info import MAX_GAP, VideoInfo

SILENCE_PEAK = 1 / 32768  # of full scale: the last of 16 bits, which codecs leave in silence
MAX_FILL_SECONDS = 60  # longer gaps are filled in pieces here; FFmpeg would fill them in one block
FADE_SAMPLES = 800  # 50 ms, by which coding and resampling extend a sound beyond its start and end


def read_audio(video: VideoInfo, rate: int) -> Iterator[np.ndarray]:
    """Read the audio from the first frame on.

    A late start and gaps of 0.1 s or more are filled with silence. What follows a gap of MAX_GAP seconds, or comes more
    than MAX_AUDIO_SECONDS after the last frame, is left out.

    Args:
        video: From `open_video`.
        rate: Hz, of the result.

    Yields:
        int16 (n, channels), one or two channels; nothing if the video has no audio track.
    """
    return _read(video, rate, "s16")


def _read(video: VideoInfo, rate: int, sample_format: str) -> Iterator[np.ndarray]:
    """`read_audio` in one of FFmpeg's sample formats."""
    if not video.audio_rate:
        return
    dtype = np.int16 if sample_format == "s16" else np.float32
    graph, graph_format, position = None, None, 0  # position: samples yielded so far
    with open_media(video.path) as (container, video_stream, audio_stream):
        assert audio_stream is not None
        for frame in decode_frames(container, audio_stream, video_stream, audio_stream):
            assert isinstance(frame, av.AudioFrame)
            time = (frame.time or 0.0) - video.start_time
            gap = time - position / rate
            if gap > MAX_GAP or frame.samples > MAX_AUDIO_SECONDS * frame.sample_rate:
                continue
            if position / rate > video.duration + MAX_AUDIO_SECONDS:
                break
            frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
            if gap > MAX_FILL_SECONDS or frame_format != graph_format:  # broadcasts change their format
                for block in pull_blocks(graph):
                    position += len(block)
                    yield block
                if gap > MAX_FILL_SECONDS:
                    for _ in range(int(time - position / rate)):
                        position += rate
                        yield np.zeros((rate, video.channels), dtype)
                graph, graph_format = _make_graph(frame, video, position, rate, sample_format), frame_format
            assert graph is not None
            graph.push(frame)
            for block in pull_blocks(graph, flush=False):
                position += len(block)
                yield block
        yield from pull_blocks(graph)


def _make_graph(
    frame: av.AudioFrame, video: VideoInfo, position: int, rate: int, sample_format: str
) -> av.filter.Graph:
    """A filter chain for frames like this one that continues the output at a sample position."""
    first_pts = round((video.start_time + position / rate) * frame.sample_rate)
    layout = "mono" if video.channels == 1 else "stereo"
    return build_audio_graph(
        frame,
        ("aresample", f"{rate}:async=1:first_pts={first_pts}"),
        ("aformat", f"sample_fmts={sample_format}:channel_layouts={layout}"),
    )


def read_audio_per_second(
    video: VideoInfo, sample_rate: int, *, int16_round_trip: bool = False
) -> Iterator[np.ndarray | None]:
    """Read the audio of each second, processed as corrected preprocessing and `load_clip_waveform` do for clips.

    That is: resampled to 16 kHz, rounded to 16 bits, channels averaged (the left one alone in seconds where the
    channels cancel), and resampled to `sample_rate`. A track that ends within a second gives the last `sample_rate`
    samples up to its end, repeated if there are fewer; but if it covers less than half of the frames of that second,
    the second is silent.

    Args:
        video: From `open_video`; gets a note if channels cancel.
        sample_rate: Hz, of the result.
        int16_round_trip: Quantize to 16 bits, as in `load_clip_waveform`.

    Yields:
        float32 (sample_rate,) in [-1, 1], or None for a silent second; nothing for the seconds after the track's end.
    """
    if not video.audio_rate:
        return
    to_16k = soxr.ResampleStream(video.audio_rate, SAMPLE_RATE, video.channels, dtype="float32", quality="HQ")
    to_target = soxr.ResampleStream(SAMPLE_RATE, sample_rate, 1, dtype="float32", quality="HQ")
    pending = np.zeros((0, video.channels), np.float32)  # at 16 kHz
    ready = previous = np.zeros(0, np.float32)  # at sample_rate
    is_silent: list[bool] = []
    started, cancels = 0, False  # started: seconds
    for block, is_last in _mark_last(_read(video, video.audio_rate, "flt")):
        resampled = to_int16(to_16k.resample_chunk(block, last=is_last)).astype(np.float32) / 32768
        pending = np.concatenate([pending, resampled])
        while len(pending) >= SAMPLE_RATE or (is_last and len(pending)):
            part, pending = pending[:SAMPLE_RATE], pending[SAMPLE_RATE:]
            is_covered = len(part) >= 0.5 * min(1.0, video.duration - started) * SAMPLE_RATE
            is_silent.append(not is_covered or _is_silent(part))
            mono = part.mean(axis=1)
            if not is_silent[-1] and channels_cancel(part):
                mono = np.ascontiguousarray(part[:, 0])
                if not cancels:
                    video.add_note(
                        f"The two channels cancel each other, first in second {started + 1}. There, the left channel "
                        "is used alone, since their average is silent."
                    )
                cancels = True
            ready = np.concatenate([ready, to_target.resample_chunk(mono)])
            started += 1
        if is_last:
            ready = np.concatenate([ready, to_target.resample_chunk(np.zeros(0, np.float32), last=True)])
        while is_silent and (len(ready) >= sample_rate or (is_last and len(ready))):
            second, ready = ready[:sample_rate], ready[sample_rate:]
            if len(second) < sample_rate:
                second = np.resize(np.concatenate([previous, second])[-sample_rate:], sample_rate)
            previous = second
            yield None if is_silent.pop(0) else quantize_int16(second) if int16_round_trip else second


def _is_silent(part: np.ndarray) -> bool:
    """Whether a second (n, channels) is silent, apart from fades at its ends."""
    inner = part[FADE_SAMPLES:-FADE_SAMPLES] if len(part) > 4 * FADE_SAMPLES else part
    return bool(np.abs(inner).max() <= SILENCE_PEAK)


def _mark_last(blocks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each block, and whether it is the last."""
    current = next(blocks, None)
    while current is not None:
        following = next(blocks, None)
        yield current, following is None
        current = following
