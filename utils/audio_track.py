"""The 16 kHz sound of a raw video: as the original's preprocessing makes it, or resampled well.

`published` is what moviepy 1.0.3 writes with ffmpeg 4.2, which is how AVSBench's own wavs and log-mels came about.
ffmpeg decodes to 44.1 kHz, stereo, 16 bits (a mono track × √½ in both channels); moviepy takes the nearest sample for
each of 16 kHz, without a filter, so that what lies above 8 kHz folds back, for as long as the file is said to last.

`corrected` keeps one or two channels at their level, begins with the first frame, resamples with a filter (soxr), and
ends where the sound ends.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import soxr

from utils.audio import MAX_AUDIO_SECONDS, SAMPLE_RATE
from utils.cli import InputError
from utils.fidelity import Fidelity, validate_fidelity
from utils.layout import CLIP_SECONDS

READER_RATE = 44_100  # Hz, to which moviepy has ffmpeg resample
READER_BUFFER = 200_000  # samples that moviepy's reader holds at most
WRITER_BLOCK = 2_000  # samples that moviepy's writer asks for at a time, at most
MOVIEPY_PEAK = 32_440  # 0.99 of full scale, to which moviepy clips


def decode_audio(
    path: Path, packets: Sequence[av.Packet], fidelity: Fidelity, *, start: float, duration: int | None
) -> np.ndarray:
    """Decode a sound track to 16 kHz.

    Args:
        path: Of the video, for messages.
        packets: The track's, in the order of the file, with the empty one that ends it.
        fidelity: "published" or "corrected"; see above.
        start: Seconds on the file's clock at which its first frame is shown. Only corrected needs it.
        duration: Microseconds that the container says to last, None if it does not. Only published needs it.

    Returns:
        int16 (n, channels): two channels as published, else one or two.

    Raises:
        InputError: There is no sound, or more than MAX_AUDIO_SECONDS seconds, or the original cannot read it.
    """
    if validate_fidelity(fidelity) == "published":
        samples, _ = _decode(path, packets, _published_graph)
        positions = moviepy_positions(path, len(samples), moviepy_duration(path, duration))
        return np.clip(samples[positions], -MOVIEPY_PEAK, MOVIEPY_PEAK)
    samples, rate = _decode(path, packets, lambda frame: _corrected_graph(frame, start))
    return to_int16(soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ"))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Round floats in [-1, 1] (clipped) to 16 bits."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def moviepy_duration(path: Path, microseconds: int | None) -> float:
    """Seconds that a file lasts as moviepy reads them off ffmpeg's output: to a hundredth.

    Raises:
        InputError: The container gives no duration, or more than MAX_AUDIO_SECONDS seconds.
    """
    if microseconds is None or microseconds < 0:
        raise InputError(f"{path}: does not say how long it is, which the original needs; use --fidelity corrected")
    if microseconds > MAX_AUDIO_SECONDS * 1_000_000:
        raise InputError(f"{path}: is more than {MAX_AUDIO_SECONDS} s long; cut it into clips of {CLIP_SECONDS} s")
    minutes, hundredths = divmod((microseconds + 5_000) // 10_000, 6_000)
    return float(f"{hundredths // 100}.{hundredths % 100:02d}") + 60.0 * minutes


def moviepy_positions(path: Path, length: int, duration: float) -> np.ndarray:
    """Which of the decoded samples moviepy takes for each sample of its 16 kHz wav.

    The nearest in time, but for the sliding buffer that it reads through. The oddities of this buffer are kept: after
    the first refill everything is one sample late; where the track ends before the duration, earlier samples come
    again or the last is repeated.
    Source: moviepy 1.0.3, `FFMPEG_AudioReader` and `AudioClip.iter_chunks`.

    Args:
        path: Of the video, for messages.
        length: Samples decoded at 44.1 kHz.
        duration: Seconds, as of `moviepy_duration`.

    Returns:
        int (16 000 · duration,), each in [0, length).

    Raises:
        InputError: moviepy fails too: nothing to write, or a track that ends too early for its buffer.
    """
    total = int(SAMPLE_RATE * duration)
    if total == 0:
        raise InputError(f"{path}: lasts no time")
    size = min(int(READER_RATE * duration) + 1, READER_BUFFER)
    first, low, high = 0, 0, min(size, length)  # it takes the samples from low to high for those from first on
    edges = np.linspace(0, total, total // WRITER_BLOCK + 2, dtype=int)
    positions = []
    for begin, end in pairwise(edges):
        wanted = np.round(READER_RATE * ((1.0 / SAMPLE_RATE) * np.arange(begin, end))).astype(int)
        outside = [at for at in (wanted[0], wanted[-1]) if not 0 <= at - first < high - low]
        if outside:
            before, first = first, max(0, outside[0] - size // 2)
            kept = before + size - first + 1  # one more than there is: all that follows is a sample late
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
    """A chain of FFmpeg filters, each a name and its options, for frames of the same kind as this one."""
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


def pull_blocks(graph: av.filter.Graph | None, more: bool = False) -> Iterator[np.ndarray]:
    """What a chain has ready, in blocks (n, channels); to the end unless more is to come."""
    if graph is None:
        return
    if not more:
        graph.push(None)
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame.to_ndarray().reshape(-1, frame.layout.nb_channels)


def _published_graph(frame: av.AudioFrame) -> av.filter.Graph:
    # As ffmpeg 4.2 does of itself, 8 and 16 bits are resampled in 16; later ones do it in floats.
    inner = ":tsf=s16p" if frame.format.bytes <= 2 else ""
    return build_audio_graph(frame, ("aresample", f"{READER_RATE}:osf=s16:ochl=stereo{inner}"))


def _corrected_graph(frame: av.AudioFrame, start: float) -> av.filter.Graph:
    rate = frame.sample_rate
    layout = "mono" if frame.layout.nb_channels == 1 else "stereo"
    return build_audio_graph(
        frame,
        # async=1: time stamps count. Silence fills a late start and holes of a tenth of a second; nothing is stretched.
        ("aresample", f"{rate}:async=1:first_pts={round(start * rate)}"),
        ("aformat", f"sample_fmts=flt:channel_layouts={layout}"),
    )


def _decode(
    path: Path, packets: Sequence[av.Packet], build: Callable[[av.AudioFrame], av.filter.Graph]
) -> tuple[np.ndarray, int]:
    """A whole track through the chain that `build` makes of its first frame: (n, channels), and the track's rate."""
    blocks: list[np.ndarray] = []
    graph, kind, seconds = None, None, 0.0
    for packet in packets:
        for frame in packet.decode():
            assert isinstance(frame, av.AudioFrame)
            this = (frame.format.name, frame.layout.name, frame.sample_rate)
            if graph is None:
                graph, kind = build(frame), this
            if this != kind:
                raise InputError(f"{path}: its sound changes its kind on the way; damaged, or not a clip")
            seconds += frame.samples / max(frame.sample_rate, 1)
            if max(seconds, frame.time or 0.0) > MAX_AUDIO_SECONDS:
                raise InputError(
                    f"{path}: has more than {MAX_AUDIO_SECONDS} s of sound; cut it into clips of {CLIP_SECONDS} s"
                )
            graph.push(frame)
            blocks += pull_blocks(graph, more=True)
    blocks += pull_blocks(graph)
    if not blocks or kind is None or not any(map(len, blocks)):
        raise InputError(f"{path}: has a sound track with no sound in it")
    return np.concatenate(blocks), kind[2]
