"""Decode the audio track of a raw video to 16 kHz, either as the original's preprocessing does or correctly.

"published" is what moviepy 1.0.3 writes with ffmpeg 4.2, as for AVSBench's own wavs and log-mels. ffmpeg
decodes to 44.1 kHz, stereo, 16 bits (a mono track × √½ in both channels); moviepy takes the nearest sample for each one
at 16 kHz, without a filter, so that frequencies above 8 kHz alias, for the duration that the container states.

"corrected" keeps one or two channels at their level, starts with the first frame, is filtered (soxr_hq), and
ends where the track ends.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import soxr  # librosa's resampler, directly: importing librosa takes seconds in each preprocessing worker

from utils.audio import MAX_AUDIO_SECONDS, SAMPLE_RATE
from utils.cli import InputError
from utils.fidelity import Fidelity, validate_fidelity

READER_RATE = 44_100  # Hz, to which moviepy has ffmpeg resample
READER_BUFFER = 200_000  # samples that moviepy's reader holds at most
WRITER_BLOCK = 2_000  # samples that moviepy's writer asks for at a time, at most
MOVIEPY_PEAK = 32_440  # 0.99 of full scale, to which moviepy clips


def decode_audio(
    path: Path, packets: Sequence[av.Packet], fidelity: Fidelity, *, start: float, duration: int | None
) -> np.ndarray:
    """Decode an audio track to 16 kHz.

    Args:
        path: Of the video, for error messages.
        packets: Of the track, in the order of the file, with the empty one at its end.
        fidelity: "published" or "corrected"; see above.
        start: Seconds on the file's clock at which the first frame is displayed; used by "corrected".
        duration: Microseconds, as stated by the container, None if it does not; used by "published".

    Returns:
        int16 (n, channels): two channels for "published", else one or two.

    Raises:
        InputError: The track is empty, damaged or longer than MAX_AUDIO_SECONDS, or the original cannot read it.
    """
    if validate_fidelity(fidelity) == "published":
        samples, _ = _decode(path, packets, _published_graph)
        positions = moviepy_positions(path, len(samples), moviepy_duration(path, duration))
        return np.clip(samples[positions], -MOVIEPY_PEAK, MOVIEPY_PEAK)
    samples, rate = _decode(path, packets, lambda frame: _corrected_graph(frame, start))
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: its audio has NaN or infinite samples; obtain it again")
    return to_int16(soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Clip floats to [-1, 1] and round them to 16 bits."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def moviepy_duration(path: Path, microseconds: int | None) -> float:
    """The duration in seconds that moviepy parses from ffmpeg's output, which has two decimals.

    Raises:
        InputError: The container gives no duration, or more than MAX_AUDIO_SECONDS seconds.
    """
    if microseconds is None or microseconds < 0:
        raise InputError(f"{path}: does not say how long it is, which the original requires; use --fidelity corrected")
    if microseconds > MAX_AUDIO_SECONDS * 1_000_000:
        raise InputError(f"{path}: is more than {MAX_AUDIO_SECONDS} s long; cut it into shorter clips")
    minutes, hundredths = divmod((microseconds + 5_000) // 10_000, 6_000)
    return float(f"{hundredths // 100}.{hundredths % 100:02d}") + 60.0 * minutes


def moviepy_positions(path: Path, length: int, duration: float) -> np.ndarray:
    """The decoded sample that moviepy takes for each sample of its 16 kHz wav.

    It is the nearest in time, except for two defects of moviepy's buffer: all samples after the first refill are one
    sample late, and if the track ends before the duration, earlier samples or the last one are repeated.

    Args:
        path: Of the video, for error messages.
        length: Number of samples decoded at 44.1 kHz.
        duration: Seconds, from `moviepy_duration`.

    Returns:
        int (16 000 · duration,), indices in [0, length).

    Raises:
        InputError: moviepy fails too: the duration is zero, or the track ends too early for its buffer.

    Source: moviepy 1.0.3, `FFMPEG_AudioReader` and `AudioClip.iter_chunks`.
    """
    total = int(SAMPLE_RATE * duration)
    if total == 0:
        raise InputError(f"{path}: has a duration of zero")
    size = min(int(READER_RATE * duration) + 1, READER_BUFFER)
    first, low, high = 0, 0, min(size, length)  # the buffer: samples low to high, taken for those from first on
    edges = np.linspace(0, total, total // WRITER_BLOCK + 2, dtype=int)
    positions = []
    for begin, end in pairwise(edges):
        wanted = np.round(READER_RATE * ((1.0 / SAMPLE_RATE) * np.arange(begin, end))).astype(int)
        outside = [at for at in (wanted[0], wanted[-1]) if not 0 <= at - first < high - low]
        if outside:
            before, first = first, max(0, outside[0] - size // 2)
            kept = before + size - first + 1  # one more than there is, so that all later samples are one late
            if first > before:
                low, high = max(low, high - kept), min(high + size - kept, length)
        index = wanted - first
        if high - low < size // 2:
            index -= size // 2 - (high - low) + 1
        index = np.minimum(index, high - low - 1)
        if index.min() < low - high:
            raise InputError(
                f"{path}: its sound ends after {length / READER_RATE:.2f} of {duration:.2f} s, on which the original "
                "fails; use --fidelity corrected"
            )
        positions.append(np.where(index < 0, high, low) + index)  # a negative index counts from the end, as in NumPy
    return np.concatenate(positions)


def build_audio_graph(frame: av.AudioFrame, *filters: tuple[str, str]) -> av.filter.Graph:
    """Build a chain of FFmpeg filters, given as (name, options), for frames of the same format as this one."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        channels=frame.layout.nb_channels,
        time_base=frame.time_base,
    )
    steps = [source, *(graph.add(name, options) for name, options in filters), graph.add("abuffersink")]
    for before, after in pairwise(steps):
        before.link_to(after)
    graph.configure()
    return graph


def pull_blocks(graph: av.filter.Graph | None, flush: bool = True) -> Iterator[np.ndarray]:
    """The output of a filter chain in blocks (n, channels). flush: end the input and pull all; None gives nothing."""
    if graph is None:
        return
    if flush:
        graph.push(None)
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame.to_ndarray().reshape(-1, frame.layout.nb_channels)


def _published_graph(frame: av.AudioFrame) -> av.filter.Graph:
    # ffmpeg 4.2 resamples 8 and 16 bits in 16 bits; later versions in floats.
    inner = ":tsf=s16p" if frame.format.bytes <= 2 else ""
    return build_audio_graph(frame, ("aresample", f"{READER_RATE}:osf=s16:ochl=stereo{inner}"))


def _corrected_graph(frame: av.AudioFrame, start: float) -> av.filter.Graph:
    rate = frame.sample_rate
    layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
    return build_audio_graph(
        frame,
        # async=1 follows time stamps: silence fills a late start and gaps of 0.1 s or more; nothing is stretched.
        ("aresample", f"{rate}:async=1:first_pts={round(start * rate)}"),
        ("aformat", f"sample_fmts=flt:channel_layouts={layout}"),
    )


def _decode(
    path: Path, packets: Sequence[av.Packet], build: Callable[[av.AudioFrame], av.filter.Graph]
) -> tuple[np.ndarray, int]:
    """Decode a whole track through a filter chain.

    Args:
        path: Of the video, for error messages.
        packets: Of the track.
        build: Makes the filter chain for the first frame.

    Returns:
        The samples (n, channels), and the track's rate in Hz.
    """
    blocks: list[np.ndarray] = []
    graph, audio_format, seconds = None, None, 0.0
    for packet in packets:
        for frame in packet.decode():
            assert isinstance(frame, av.AudioFrame)
            frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
            if graph is None:
                graph, audio_format = build(frame), frame_format
            if frame_format != audio_format:
                raise InputError(f"{path}: its audio format changes; damaged, or not a clip")
            seconds += frame.samples / max(frame.sample_rate, 1)
            if max(seconds, frame.time or 0.0) > MAX_AUDIO_SECONDS:
                raise InputError(f"{path}: has more than {MAX_AUDIO_SECONDS} s of sound; cut it into shorter clips")
            graph.push(frame)
            blocks += pull_blocks(graph, flush=False)
    blocks += pull_blocks(graph)
    if not blocks or audio_format is None or not any(map(len, blocks)):
        raise InputError(f"{path}: has an empty audio track")
    return np.concatenate(blocks), audio_format[2]
