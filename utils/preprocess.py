"""Raw videos → frames, 16 kHz sound and log-mel examples on disk. S4 and MS3 alike.

Each file is written atomically, and a clip whose files are all there and intact is skipped, so an interrupted
run goes on where it stopped. One clip that cannot be read never stops the others.

`published` makes what AVSBench distributes, up to rounding; corrected makes what was meant (docs/deviations.md).
Corrected is the default, as in every command: new clips, and networks trained on them, are better off without sound
that folds back and a level that depends on the number of channels. Weights trained on AVSBench's own log-mels (public
TPAVI), and figures to be set beside those of others on AVSBench, want published; the README's steps give it.
Each wav says in its comment what it was made as. A folder goes on as what it is; asking for the other makes its clips
anew. Files without the comment, such as AVSBench's own, are kept.
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

import soundfile
from tqdm import tqdm

from utils.audio import SAMPLE_RATE, log_mel, pad_or_trim, read_wav
from utils.cli import InputError, Parser, progress_bar_options
from utils.fidelity import Fidelity
from utils.files import npy_bytes, png_bytes, read_image, remove_partials, wav_bytes, write_bytes, write_text
from utils.layout import BENCHMARKS, FRAME_SIZE, AVSBench, BenchmarkName, Clip
from utils.lock import exclusive_lock
from utils.log_mel import read_log_mel
from utils.option_ranges import NUM_JOBS
from utils.parallel import WORKER_LOST, parallel_map
from utils.paths import resolve_path
from utils.video import read_clip

COMMENT = "preprocessed as "  # in a wav, before its fidelity
ANEW = "--overwrite makes them anew"
UNTAGGED = "kept; its wav does not say its fidelity"


@dataclass
class ClipResult:
    """One row of the report."""

    clip: str
    split: str
    category: str
    status: str  # done, skipped or failed
    reason: str = ""


def frames_intact(data: AVSBench, clip: Clip) -> bool:
    """Whether the five frames are there, whole, and 224×224."""
    try:
        return all(read_image(path).shape[:2] == FRAME_SIZE for path in data.frames(clip))
    except InputError:
        return False


def read_fidelity_tag(path: Path) -> Fidelity | None:
    """What a wav says it was made as; None if it does not say, or cannot be read."""
    try:
        with soundfile.SoundFile(path) as file:
            comment = file.comment
    except soundfile.SoundFileError:
        return None
    kinds: tuple[Fidelity, ...] = get_args(Fidelity)
    return next((kind for kind in kinds if comment == COMMENT + kind), None)


def detect_fidelity(data: AVSBench) -> Fidelity:
    """What the clips of a folder were preprocessed as; corrected if none says. Raises InputError if it holds both."""
    found: Counter[Fidelity] = Counter(kind for clip in data.clips if (kind := read_fidelity_tag(data.wav(clip))))
    if len(found) > 1:
        kinds = ", ".join(f"{number} as {kind}" for kind, number in sorted(found.items()))
        script = f"python preprocess_{data.benchmark.name}.py --root {data.root}"
        raise InputError(f"{data.root}: clips are preprocessed differently ({kinds}); run {script} --fidelity with one")
    return next(iter(found), "corrected")


def audio_intact(data: AVSBench, clip: Clip) -> bool:
    """Whether the wav is there, whole, and at 16 kHz."""
    try:
        samples, rate = read_wav(data.wav(clip))
    except (InputError, OSError):
        return False
    return len(samples) > 0 and rate == SAMPLE_RATE


def log_mel_intact(data: AVSBench, clip: Clip) -> bool:
    """Whether our log-mel file, or AVSBench's pickled one, is there, whole, and (5, 1, 96, 64)."""
    try:
        read_log_mel(data, clip)
    except (InputError, OSError):
        return False
    return True


def preprocess_clip(
    data: AVSBench, clip: Clip, fidelity: Fidelity = "corrected", overwrite: bool = False
) -> ClipResult:
    """Make the frames, wav and log-mel of one clip; what goes wrong becomes the outcome's reason."""
    outcome = ClipResult(clip.name, clip.split, clip.category, "done")
    wav, examples = data.wav(clip), data.log_mel(clip)
    try:
        before = read_fidelity_tag(wav)
        other = before not in (None, fidelity)
        if not other and not overwrite and all(f(data, clip) for f in (frames_intact, audio_intact, log_mel_intact)):
            outcome.status, outcome.reason = "skipped", "" if before else UNTAGGED
            return outcome
        media = read_clip(data.video(clip), fidelity)
        try:
            array = pad_or_trim(log_mel(media.samples, SAMPLE_RATE))
        except ValueError as error:
            raise InputError(f"{data.video(clip)}: {error}") from error
        if other:  # killed from here on, it must be taken for neither
            wav.unlink()
            examples.unlink(missing_ok=True)
            outcome.reason = f"was {before}"
        for path, frame in zip(data.frames(clip), media.frames, strict=True):
            write_bytes(path, png_bytes(frame, compress=False))  # read in every epoch
        write_bytes(wav, wav_bytes(media.samples, SAMPLE_RATE, COMMENT + fidelity))
        write_bytes(examples, npy_bytes(array))
    except InputError as error:
        outcome.status, outcome.reason = "failed", str(error)
    except OSError as error:
        outcome.status, outcome.reason = "failed", f"cannot write: {error}"
    return outcome


def preprocess(
    data: AVSBench, jobs: int = -1, overwrite: bool = False, fidelity: Fidelity = "corrected"
) -> list[ClipResult]:
    """Preprocess every clip of the meta CSV in parallel; outcomes come in the order of the CSV."""
    work = partial(preprocess_clip, data, fidelity=fidelity, overwrite=overwrite)
    made = parallel_map(work, data.clips, jobs)
    bar = tqdm(
        made, total=len(data.clips), desc=f"preprocess {data.benchmark.name}", unit="clip", **progress_bar_options()
    )
    return [
        outcome or ClipResult(clip.name, clip.split, clip.category, "failed", WORKER_LOST)
        for clip, outcome in zip(data.clips, bar, strict=True)
    ]


def write_report(path: Path, outcomes: Sequence[ClipResult]) -> None:
    """Write the outcomes as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(ClipResult)])
    writer.writeheader()
    writer.writerows(asdict(outcome) for outcome in outcomes)
    write_text(path, text.getvalue())


def main(benchmark: BenchmarkName, argv: Sequence[str] | None, usage: str | None) -> int:
    """The command line that preprocess_s4.py and preprocess_ms3.py share."""
    parser = Parser(usage)
    parser.add_argument("--root", type=resolve_path, default=f"avsbench_data/{BENCHMARKS[benchmark].root}")
    parser.add_argument("--jobs", type=NUM_JOBS, default=-1, help="processes (default -1: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="make again what is already there")
    parser.add_argument(
        "--fidelity",
        choices=get_args(Fidelity),
        help="published makes what AVSBench distributes and public TPAVI weights were trained on; "
        "default: as the folder was begun, a new one corrected",
    )
    args = parser.parse_args(argv)
    data = AVSBench(args.root, benchmark)
    fidelity = args.fidelity or detect_fidelity(data)
    begin = time.perf_counter()
    with exclusive_lock(args.root / ".lock", "preprocesses here"):
        remove_partials(args.root)
        outcomes = preprocess(data, args.jobs, args.overwrite, fidelity)
        seconds = time.perf_counter() - begin
        report = args.root / f"{benchmark}_preprocess_report.csv"
        write_report(report, outcomes)
    for outcome in outcomes:
        if outcome.status == "failed":
            print(f"failed: {outcome.clip}: {outcome.reason}")
    count = Counter(outcome.status for outcome in outcomes)
    print(
        f"{len(outcomes)} clips as {fidelity} in {seconds:.1f} s ({len(outcomes) / seconds:.1f} a second): "
        f"{count['done']} done, {count['skipped']} skipped, {count['failed']} failed. Report: {report}"
    )
    if unstated := sum(outcome.reason == UNTAGGED for outcome in outcomes):
        print(f"note: {unstated} of them were kept though they do not say whether they are {fidelity}; {ANEW}")
    return 1 if count["failed"] else 0
