"""Check that the files of a benchmark are complete and readable, before a long run.

    python -m avsbench_data.check --root avsbench_data/Single-source --benchmark s4
    python -m avsbench_data.check --root avsbench_data/AVSBench-semantic --benchmark avss

Reports every file that is missing, unreadable or of the wrong shape, and how to fix it. Raw videos and masks are always
checked; frames, audio and log-mels if there are any, from preprocessing or from AVSBench's distribution. Exit code 1 if
anything is wrong. --soft-masks dither accepts gray masks, as runs with data.soft_masks: dither do. Of AVSS also the
names of classes, the colors and sizes of labels, and stray files beside frames and labels are checked.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from avsbench_data.check_avss import avss_problems
from utils.audio import SAMPLE_RATE, read_wav
from utils.cli import InputError, Parser, cli_entry, progress_bar_options
from utils.dataset import read_frame, read_log_mel
from utils.layout import BENCHMARKS, AVSBench, Clip, SoftMasks
from utils.masks import SoftMaskError, read_mask
from utils.option_ranges import NUM_JOBS
from utils.parallel import WORKER_LOST, parallel_map
from utils.paths import resolve_path
from utils.preprocess import detect_fidelity
from utils.video import check_clip
from utils.words import counted


def clip_problems(data: AVSBench, clip: Clip, raw: bool, features: bool, soft_masks: SoftMasks = "refuse") -> list[str]:
    """Check the files of one clip.

    Args:
        data: the benchmark.
        clip: one of its clips.
        raw: check the video.
        features: check frames, audio and log-mels.
        soft_masks: the option data.soft_masks of the loaders.

    Returns:
        The problems, one line each, with the fix.
    """
    problems = []
    for check, fix in _checks(data, clip, raw, features, data.preprocess_command, soft_masks):
        try:
            check()
        except InputError as error:
            problems.append(f"{error}{'' if 'preprocess' in str(error) else f' — {fix}'}")
    return problems


def _checks(
    data: AVSBench, clip: Clip, raw: bool, features: bool, command: str, soft_masks: SoftMasks
) -> Iterator[tuple[Callable[[], object], str]]:
    """The checks of a clip, which raise InputError, and how to fix what they find."""
    if raw:
        yield lambda: check_clip(data.video(clip)), "obtain the raw video again"
    for path in data.masks(clip):
        yield partial(read_mask, path, soft_masks), "obtain gt_masks again"
    if features:
        for path in data.frames(clip):
            yield partial(read_frame, path), f"run {command}"
        yield lambda: _check_wav(data.wav(clip)), f"run {command}"
        yield lambda: read_log_mel(data, clip), f"run {command}"


def count_gray_pixels(data: AVSBench, clip: Clip) -> list[int]:
    """For each gray mask of a clip, how many pixels are neither black nor white."""
    counts = []
    for path in data.masks(clip):
        try:
            read_mask(path)
        except SoftMaskError as error:
            counts.append(error.pixels)
        except InputError:
            pass  # `clip_problems` reports it
    return counts


def _check_clip_files(
    clip: Clip, data: AVSBench, raw: bool, features: bool, soft_masks: SoftMasks
) -> tuple[list[str], list[int]]:
    """The problems of a clip, and the gray pixels of its masks."""
    if data.benchmark.name == "avss":
        return avss_problems(data, clip, features), []
    problems = clip_problems(data, clip, raw, features, soft_masks)
    return problems, count_gray_pixels(data, clip) if problems or soft_masks == "dither" else []


def _check_wav(path: Path) -> None:
    samples, rate = read_wav(path)
    if rate != SAMPLE_RATE:
        raise InputError(f"{path}: has a sample rate of {rate} Hz, not 16000 Hz")
    if len(samples) == 0:
        raise InputError(f"{path}: has no samples")


def _what_exists(data: AVSBench) -> tuple[bool, bool]:
    """Whether there are raw videos, and features of preprocessing; prints what is not checked.

    Raises:
        InputError: there is nothing to check.
    """
    name, raw = data.benchmark.name, False
    if data.benchmark.video:
        folder = data.root / f"{name}_data"
        raw = (folder / "raw_videos").is_dir()
        features = any((folder / part).is_dir() for part in ("visual_frames", "audio_wav", "audio_log_mel"))
        if not raw and not features:
            raise InputError(f"{folder}: has neither raw_videos nor visual_frames; see avsbench_data/README.md")
        if not raw:
            print("note: no raw_videos; only the distributed frames, audio and log-mels are checked")
    else:
        features = any(data.wav(clip).is_file() for clip in data.clips)
    if not features:
        print(f"note: not preprocessed yet; run {data.preprocess_command}")
    return raw, features


def check_benchmark(data: AVSBench, raw: bool, features: bool, soft_masks: SoftMasks, jobs: int) -> tuple[int, int]:
    """Check all clips of a benchmark and print their problems.

    Returns:
        How many clips have problems, and how many problems there are.
    """
    check = partial(_check_clip_files, data=data, raw=raw, features=features, soft_masks=soft_masks)
    results = parallel_map(check, data.clips, jobs)
    name = data.benchmark.name
    bar = tqdm(results, total=len(data.clips), desc=f"check {name}", unit="clip", **progress_bar_options())
    bad, count, gray = 0, 0, []
    for clip, result in zip(data.clips, bar, strict=True):
        problems, pixels = result or ([f"{clip.name}: cannot be checked, {WORKER_LOST}"], [])
        gray += pixels
        bad += bool(problems)
        count += len(problems)
        for problem in problems:
            tqdm.write(problem, file=sys.stdout)
    if gray:
        treatment = "dithered" if soft_masks == "dither" else "refused; --soft-masks dither accepts them"
        content = f"{counted(sum(gray), 'pixel')} neither black nor white"
        print(f"note: {counted(len(gray), 'gray mask')}, with {content}: {treatment}")
    return bad, count


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__, prog="python -m avsbench_data.check")
    parser.add_argument("--root", type=resolve_path, required=True, help="folder with the meta CSV")
    parser.add_argument("--benchmark", choices=tuple(BENCHMARKS), required=True)
    parser.add_argument(
        "--soft-masks",
        choices=get_args(SoftMasks),
        default="refuse",
        help="gray masks: refuse them (default), or dither them as the original's S4 loader does",
    )
    parser.add_argument("--jobs", type=NUM_JOBS, default=-1, help="processes (default -1: one per core)")
    args = parser.parse_args(argv)
    data = AVSBench(args.root, args.benchmark)
    raw, features = _what_exists(data)
    bad, count = check_benchmark(data, raw, features, args.soft_masks, args.jobs)
    try:
        detect_fidelity(data)
    except InputError as error:
        bad, count = bad + 1, count + 1
        print(error)
    counts = ", ".join(f"{len(data.split(split))} {split}" for split in ("train", "val", "test"))
    print(
        f"{counted(len(data.clips), 'clip')} ({counts}): {f'{bad} with problems, {count} in all' if bad else 'all ok'}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
