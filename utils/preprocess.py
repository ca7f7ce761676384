"""Preprocess raw videos into frames, 16 kHz audio and log-mel examples, for S4 and MS3; for AVSS, which is distributed
as frames and audio, make the 16 kHz audio and the log-mel examples.

Files are written atomically, and clips whose files are all intact are skipped, so running the command again resumes an
interrupted run. A clip that cannot be read does not stop the others.

Fidelity "published" gives what AVSBench distributes, up to rounding; use it for weights trained on AVSBench's log-mels
(the public TPAVI checkpoints) and for results to be compared with others' on AVSBench. "corrected", the default as in
all commands, avoids aliasing and a level that depends on the number of channels (docs/deviations.md). Each wav
states its fidelity in its comment. A folder keeps its fidelity unless the other one is requested, which makes its clips
again. Wavs without the comment, such as AVSBench's own, are kept.
"""

import csv
import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from utils.audio import SAMPLE_RATE, log_mel, pad_or_trim, read_wav
from utils.audio_track import to_int16
from utils.cli import InputError, Parser, progress_bar_options
from utils.fidelity import Fidelity
from utils.files import npy_bytes, png_bytes, read_image, remove_partials, wav_bytes, write_bytes, write_text
from utils.layout import BENCHMARKS, FRAME_SIZE, AVSBench, BenchmarkName, Clip
from utils.lock import exclusive_lock
from utils.log_mel import read_log_mel
from utils.option_ranges import NUM_JOBS
from utils.parallel import WORKER_LOST, parallel_map
from utils.paths import resolve_path
from utils.video import ClipMedia, read_clip
from utils.words import counted

COMMENT = "preprocessed as "  # of a wav, followed by its fidelity
UNTAGGED = "kept; its wav does not state its fidelity"


@dataclass
class ClipResult:
    """A row of the report; status is done, skipped or failed. The notes are of clips that are done."""

    clip: str
    split: str
    category: str
    status: str
    reason: str = ""
    notes: str = ""


def frames_intact(data: AVSBench, clip: Clip) -> bool:
    """Whether all frames exist, are readable and 224×224. Those of AVSS are not made here."""
    if not data.benchmark.video:
        return True
    try:
        return all(read_image(path).shape[:2] == FRAME_SIZE for path in data.frames(clip))
    except InputError:
        return False


def read_fidelity_tag(path: Path) -> Fidelity | None:
    """The fidelity in the comment of a wav; None if it has none, or cannot be read."""
    try:
        with soundfile.SoundFile(path) as file:
            comment = file.comment
    except soundfile.SoundFileError:
        return None
    values: tuple[Fidelity, ...] = get_args(Fidelity)
    return next((fidelity for fidelity in values if comment == COMMENT + fidelity), None)


def detect_fidelity(data: AVSBench) -> Fidelity:
    """The fidelity of a folder's clips; corrected if none states it. Raises InputError if it has both."""
    tags = (read_fidelity_tag(data.wav(clip)) for clip in data.clips)
    counts: Counter[Fidelity] = Counter(tag for tag in tags if tag)
    if len(counts) > 1:
        summary = ", ".join(f"{count} as {tag}" for tag, count in sorted(counts.items()))
        raise InputError(
            f"{data.root}: clips are preprocessed differently ({summary}); "
            f"run {data.preprocess_command} --fidelity with one"
        )
    return next(iter(counts), "corrected")


def audio_intact(data: AVSBench, clip: Clip) -> bool:
    """Whether the wav exists, is complete and at 16 kHz."""
    try:
        samples, rate = read_wav(data.wav(clip))
    except (InputError, OSError):
        return False
    return len(samples) > 0 and rate == SAMPLE_RATE


def log_mel_intact(data: AVSBench, clip: Clip) -> bool:
    """Whether our log-mel file, or AVSBench's pickled one, exists, is readable and of the clip's length."""
    try:
        read_log_mel(data, clip)
    except (InputError, OSError):
        return False
    return True


def preprocess_clip(
    data: AVSBench, clip: Clip, fidelity: Fidelity = "corrected", overwrite: bool = False
) -> ClipResult:
    """Make the frames, wav and log-mel examples of a clip; errors are reported in the result."""
    result = ClipResult(clip.name, clip.split, clip.category, "done")
    wav, examples = data.wav(clip), data.log_mel(clip)
    try:
        previous = read_fidelity_tag(wav)
        is_other = previous not in (None, fidelity)
        if not is_other and not overwrite and all(f(data, clip) for f in (frames_intact, audio_intact, log_mel_intact)):
            result.status, result.reason = "skipped", "" if previous else UNTAGGED
            return result
        media, array = _read_video(data, clip, fidelity) if data.benchmark.video else _read_audio(data, clip, fidelity)
        result.notes = " ".join(media.notes)
        if is_other:  # if killed from here on, the clip must not pass for either
            wav.unlink()
            examples.unlink(missing_ok=True)
            result.reason = f"was {previous}"
        for path, frame in zip(data.frames(clip) if data.benchmark.video else (), media.frames, strict=True):
            write_bytes(path, png_bytes(frame, compress=False))  # faster to read in every epoch
        write_bytes(wav, wav_bytes(media.samples, SAMPLE_RATE, COMMENT + fidelity))
        write_bytes(examples, npy_bytes(array))
    except InputError as error:
        result.status, result.reason = "failed", str(error)
    except OSError as error:
        result.status, result.reason = "failed", f"cannot write: {error}"
    return result


def _read_video(data: AVSBench, clip: Clip, fidelity: Fidelity) -> tuple[ClipMedia, np.ndarray]:
    """The frames, audio and log-mel examples of a raw video."""
    path, seconds = data.video(clip), data.benchmark.num_frames(clip)
    media = read_clip(path, fidelity, seconds)
    try:
        return media, pad_or_trim(log_mel(media.samples, SAMPLE_RATE), seconds)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _read_audio(data: AVSBench, clip: Clip, fidelity: Fidelity) -> tuple[ClipMedia, np.ndarray]:
    """The 16 kHz audio and log-mel examples of a clip of AVSS; no frames.

    "published" computes examples as AVSBench's VGGish does: from the distributed audio, whatever its rate, with zeros
    for those that are missing at the end. "corrected" computes them from the 16 kHz audio and repeats the last one.
    """
    path, seconds = data.source_audio(clip), data.benchmark.num_frames(clip)
    samples, rate = read_wav(path)
    if rate == SAMPLE_RATE:
        media = ClipMedia([], samples)
    else:
        media = ClipMedia([], to_int16(soxr.resample(samples / np.float32(32768), rate, SAMPLE_RATE, quality="HQ")))
    if fidelity == "published":
        examples = log_mel(samples, rate)[:seconds]
        missing = seconds - len(examples)
        return media, np.concatenate([examples, np.zeros((missing, *examples.shape[1:]), np.float32)])
    try:
        return media, pad_or_trim(log_mel(media.samples, SAMPLE_RATE), seconds)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def preprocess(
    data: AVSBench, jobs: int = -1, overwrite: bool = False, fidelity: Fidelity = "corrected"
) -> list[ClipResult]:
    """Preprocess all clips in parallel. Returns their results in the order of the meta CSV."""
    work = partial(preprocess_clip, data, fidelity=fidelity, overwrite=overwrite)
    processed = parallel_map(work, data.clips, jobs)
    name, total = data.benchmark.name, len(data.clips)
    bar = tqdm(processed, total=total, desc=f"preprocess {name}", unit="clip", **progress_bar_options())
    return [
        result or ClipResult(clip.name, clip.split, clip.category, "failed", WORKER_LOST)
        for clip, result in zip(data.clips, bar, strict=True)
    ]


def write_report(path: Path, results: Sequence[ClipResult]) -> None:
    """Write the results to a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(ClipResult)])
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    write_text(path, text.getvalue())


def main(benchmark: BenchmarkName, argv: Sequence[str] | None, usage: str | None) -> int:
    """The command line that preprocess_s4.py, preprocess_ms3.py and preprocess_avss.py share."""
    parser = Parser(usage)
    parser.add_argument("--root", type=resolve_path, default=f"avsbench_data/{BENCHMARKS[benchmark].root}")
    parser.add_argument("--jobs", type=NUM_JOBS, default=-1, help="number of processes (default -1: one per core)")
    parser.add_argument("--overwrite", action="store_true", help="make files again that are intact")
    parser.add_argument(
        "--fidelity",
        choices=get_args(Fidelity),
        help="published gives what AVSBench distributes and public TPAVI weights were trained on; "
        "default: that of the folder, corrected for a new one",
    )
    args = parser.parse_args(argv)
    data = AVSBench(args.root, benchmark)
    fidelity = args.fidelity or detect_fidelity(data)
    begin = time.perf_counter()
    with exclusive_lock(args.root / ".lock", "is preprocessing here"):
        remove_partials(args.root)
        results = preprocess(data, args.jobs, args.overwrite, fidelity)
        seconds = time.perf_counter() - begin
        report = args.root / f"{benchmark}_preprocess_report.csv"
        write_report(report, results)
    for result in results:
        if result.status == "failed":
            print(f"failed: {result.clip}: {result.reason}")
    count = Counter(result.status for result in results)
    print(
        f"{counted(len(results), 'clip')} as {fidelity} in {seconds:.1f} s ({len(results) / seconds:.1f} per second): "
        f"{count['done']} done, {count['skipped']} skipped, {count['failed']} failed. Report: {report}"
    )
    if noted := sum(bool(result.notes) for result in results):
        print(f"note: {counted(noted, 'clip')} had something unusual, which the column notes of the report says")
    if untagged := sum(result.reason == UNTAGGED for result in results):
        print(f"note: {untagged} of them were kept but do not state their fidelity; --overwrite makes them again")
    return 1 if count["failed"] else 0
