"""Compose synthetic clips with exact masks, in the layout of AVSBench's raw data.

  python -m synthetic.compose --out DIR [--pictures DIR] [--backgrounds DIR] [--s4 N] [--ms3 N] [--avss N] [--seed S]
  python -m synthetic.compose --out DIR --level hard --split test

DIR/Single-source (S4): one object sounds; one to three of other categories are silent, so that the image alone does
not determine the mask. DIR/Multi-sources (MS3): two or three objects sound, each for a run of seconds; at least one
is silent. The mask of a second covers the visible parts of all objects that sound in it, in the frame that
preprocessing extracts. DIR/AVSBench-semantic (AVSS, with --avss): clips like both, of five and ten seconds, as frames
and audio, and for each pixel the class of the sounding object that it shows (synthetic/clips/avss.py).

The objects are fourteen built-in drawings with synthesized sounds (DIR/offscreen_sounds gets sounds of none of them,
for evaluations with --audio offscreen), or, with --pictures, NAME.png (with alpha) and NAME.ogg or NAME.wav. They move
over plain backgrounds, or, with --backgrounds, over crops of photographs (JPEG or PNG).

--level hard adds what makes real clips difficult: cluttered backgrounds, objects that are small, partly hidden or cut
off, up to seven silent objects, loud background noise, seconds of silence (whose mask is empty), and objects
that sound outside the picture.

Clips are assigned to train, val and test in the ratio 70/15/15, S4 clips within each category. A category enters each
split once before it enters any split twice, so small sets have a larger val and test. The same arguments give the same
masks and meta data, whatever --jobs is. Running the command again resumes where it stopped; one run at a time per DIR.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import argparse
import csv
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from synthetic.clips.assets import AssetLibrary, open_assets
from synthetic.clips.avss import avss_meta, compose_avss_clip, plan_avss
from synthetic.clips.plan import MIN_CATEGORIES, ClipSpec, RenderConfig, clip_rng, plan_clips
from synthetic.clips.sampling import LEVELS, mix_audio, sample_objects, sample_scene
from synthetic.clips.sounds import OFFSCREEN_SOUNDS, synthesize
from synthetic.clips.synthesis import SYNTHESIS_RATE
from utils.cli import InputError, Parser, cli_entry, progress_bar_options
from utils.files import png_bytes, remove_partials, sha256, wav_bytes, write_bytes, write_text
from utils.layout import BENCHMARKS, SPLITS, BenchmarkName
from utils.lock import exclusive_lock
from utils.option_ranges import NON_NEGATIVE_INT, NUM_JOBS, SEED_INT, bounded_number
from utils.parallel import WORKER_LOST, parallel_map
from utils.paths import expand_user, resolve_path
from utils.timestamps import displayed_frames
from utils.video_writer import limit_frame_rate, write_video
from utils.words import counted

VERSION = 1  # of the composed clips: increase it when the same arguments would give other clips
RECIPE = "compose.json"


def compose_clip(spec: ClipSpec, config: RenderConfig, assets: AssetLibrary) -> bool:
    """Write the masks and then the video of one clip, unless they exist.

    The video is written last and atomically, so a clip whose video exists is complete.

    Returns:
        Whether the clip existed.
    """
    cv2.setNumThreads(1)  # clips are composed in parallel processes
    if spec.benchmark == "avss":
        return compose_avss_clip(spec, config, assets)
    benchmark, clip = BENCHMARKS[spec.benchmark], spec.clip
    video = config.path(spec.benchmark, benchmark.video, clip)
    masks = [config.path(spec.benchmark, benchmark.mask, clip, k + 1) for k in range(benchmark.num_labeled(clip))]
    if all(path.is_file() for path in (video, *masks)):
        return True
    rng = clip_rng(config.seed, spec.benchmark, spec.index)
    level = LEVELS[config.level]
    objects = sample_objects(spec.benchmark, spec.target, assets.categories, rng, level)
    count = int(np.ceil(benchmark.num_frames(clip) * config.fps))
    times = (displayed_frames(np.arange(count) / config.fps) / config.fps).tolist()
    scene, fractions = sample_scene(objects, assets, config.size, times, rng, level)
    for second, path in enumerate(masks):
        shown = [item for item in objects if item.visible]
        covered = sum(part for item, part in zip(shown, fractions[second], strict=True) if second in item.sounding)
        mask = np.broadcast_to(np.asarray(covered) > 0.5, fractions.shape[2:])
        write_bytes(path, png_bytes(mask.astype(np.uint8) * 255))
    frames = (scene.frame(index / config.fps) for index in range(count))
    write_video(video, frames, config.fps, mix_audio(objects, assets, rng, level), SYNTHESIS_RATE)
    return False


def sounding_categories(spec: ClipSpec, config: RenderConfig, assets: AssetLibrary) -> str:
    """The categories of what is seen to sound in a clip, joined by "_"."""
    assert spec.benchmark != "avss"  # whose clips name them
    rng = clip_rng(config.seed, spec.benchmark, spec.index)  # the objects are what it draws first
    objects = sample_objects(spec.benchmark, spec.target, assets.categories, rng, LEVELS[config.level])
    return "_".join(sorted(item.category for item in objects if item.sounding and item.visible))


def write_meta(benchmark: BenchmarkName, specs: Sequence[ClipSpec], config: RenderConfig, assets: AssetLibrary) -> None:
    """Write the meta CSV of a benchmark; called last, so that it lists only clips that exist."""
    if benchmark == "avss":
        write_text(config.path(benchmark, BENCHMARKS[benchmark].meta), avss_meta(specs))
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    s4 = benchmark == "s4"
    writer.writerow(BENCHMARKS[benchmark].columns if s4 else (*BENCHMARKS[benchmark].columns, "a_obj"))
    for spec in specs:
        clip = spec.clip
        if s4:
            writer.writerow((clip.name, clip.start, clip.category, clip.split))
        else:
            writer.writerow((clip.name, clip.split, sounding_categories(spec, config, assets)))
    write_text(config.path(benchmark, BENCHMARKS[benchmark].meta), text.getvalue())


def check_recipe(config: RenderConfig, assets: AssetLibrary, counts: dict[BenchmarkName, int]) -> None:
    """Record the arguments in the output folder, or compare them with those of an earlier run.

    Raises:
        InputError: if the folder was composed with other arguments, or holds data that this command did not compose.
    """
    recipe: dict[str, Any] = {
        "version": VERSION,
        "seed": config.seed,
        "fps": config.fps,
        "size": "{1}x{0}".format(*config.size),
        "clips": counts,
        "level": config.level,
        "categories": list(assets.categories),
        "pictures": {path.name: sha256(path) for path in assets.object_files},
        "backgrounds": {path.name: sha256(path) for path in assets.photographs},
    }
    path = config.out / RECIPE
    if path.is_file():
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))
            recorded.setdefault("level", "plain")  # of folders that were composed before there were levels
            differing = [key for key in recipe if recorded.get(key, {}) != recipe[key]]
        except (ValueError, AttributeError):
            raise InputError(f"{path}: unreadable; choose another --out, or delete {config.out} first") from None
        if differing:
            raise InputError(
                f"{config.out} was composed with other arguments ({', '.join(differing)}: see {RECIPE}); "
                "choose another --out, or delete it first"
            )
        return
    for benchmark in counts:
        if (root := config.path(benchmark, "")).exists():
            raise InputError(f"{root} exists and was not composed by this command; choose another --out")
    write_text(path, json.dumps(recipe, indent=1) + "\n")


def frame_size(text: str) -> tuple[int, int]:
    """Parse WxH into (height, width); ValueError unless both are even and at least 64."""
    width, height = (int(number) for number in text.lower().split("x"))
    if min(width, height) < 64 or width % 2 or height % 2:
        raise ValueError
    return height, width


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__, prog="python -m synthetic.compose")
    parser.add_argument("--out", type=expand_user, required=True, help="output folder")
    parser.add_argument(
        "--pictures", type=resolve_path, help="folder of object pictures and recordings (default: built-in)"
    )
    parser.add_argument("--backgrounds", type=resolve_path, help="folder of photographs (default: plain backgrounds)")
    parser.add_argument(
        "--s4", type=NON_NEGATIVE_INT, default=280, metavar="N", help="single-source clips (default 280)"
    )
    parser.add_argument("--ms3", type=NON_NEGATIVE_INT, default=70, metavar="N", help="multi-source clips (default 70)")
    parser.add_argument("--avss", type=NON_NEGATIVE_INT, default=0, metavar="N", help="semantic clips (default 0)")
    parser.add_argument("--level", choices=tuple(LEVELS), default="plain", help="of difficulty (default plain)")
    parser.add_argument("--split", choices=SPLITS, help="compose only the clips of this split, the same as among all")
    parser.add_argument("--seed", type=SEED_INT, default=0, help="default 0")
    parser.add_argument("--jobs", type=NUM_JOBS, default=-1, help="processes (default -1: one per core)")
    parser.add_argument(
        "--fps", type=bounded_number(float, 1, 120), default=10.0, help="frames per second, 1 to 120 (default 10)"
    )
    parser.add_argument("--size", type=frame_size, default=(240, 320), metavar="WxH", help="even (default 320x240)")
    args = parser.parse_args(argv)
    if args.s4 + args.ms3 + args.avss == 0:
        parser.error("--s4, --ms3 and --avss are all 0; there is nothing to compose")
    return args


def write_offscreen_sounds(folder: Path, seed: int) -> None:
    """Write sounds of no drawing, five seconds each, for evaluations with --audio offscreen."""
    for number, name in enumerate(OFFSCREEN_SOUNDS):
        path = folder / f"{name}.wav"
        if not path.is_file():
            sound = synthesize(
                name, BENCHMARKS["s4"].max_seconds * SYNTHESIS_RATE, np.random.default_rng([seed, number])
            )
            samples = np.rint(sound * (32767 * 0.6 / np.abs(sound).max())).astype(np.int16)
            write_bytes(path, wav_bytes(samples, SYNTHESIS_RATE))


def compose_clips(
    plans: dict[BenchmarkName, list[ClipSpec]], config: RenderConfig, assets: AssetLibrary, jobs: int
) -> list[bool]:
    """Compose the planned clips and write the meta CSVs.

    Returns:
        For each clip whether it existed.

    Raises:
        InputError: if the folder cannot be used or a clip could not be composed.
    """
    specs = [spec for plan in plans.values() for spec in plan]
    try:
        with exclusive_lock(config.out / ".lock", "composes here"):
            check_recipe(config, assets, {name: len(plan) for name, plan in plans.items()})
            remove_partials(config.out)
            existed = parallel_map(partial(compose_clip, config=config, assets=assets), specs, jobs)
            results = list(tqdm(existed, total=len(specs), desc="compose", unit="clip", **progress_bar_options()))
            if lost := [spec.clip.name for spec, result in zip(specs, results, strict=True) if result is None]:
                raise InputError(f"not composed: {', '.join(lost)}: {WORKER_LOST}")
            for name, plan in plans.items():
                write_meta(name, plan, config, assets)
    except OSError as error:
        raise InputError(f"cannot write into {config.out}: {error}; fix that and run the command again") from error
    return [bool(result) for result in results]


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parse(argv)
    begin = time.perf_counter()
    assets = open_assets(args.pictures, args.backgrounds)
    config = RenderConfig(args.out, args.seed, float(limit_frame_rate(args.fps)), args.size, args.level)
    requested: dict[BenchmarkName, int] = {"s4": args.s4, "ms3": args.ms3, "avss": args.avss}
    counts = {name: count for name, count in requested.items() if count}
    for name in counts:
        if len(assets.categories) < MIN_CATEGORIES[name]:
            found = counted(len(assets.categories), "category", "categories")
            raise InputError(f"{args.pictures}: has {found}, too few for {name}, which needs {MIN_CATEGORIES[name]}")
    plans = {
        name: plan_avss(count, assets.categories, config)
        if name == "avss"
        else plan_clips(name, count, assets.categories, args.seed)
        for name, count in counts.items()
    }
    if args.split:
        plans = {name: [spec for spec in plan if spec.clip.split == args.split] for name, plan in plans.items()}
    results = compose_clips(plans, config, assets, args.jobs)
    if args.pictures is None:
        write_offscreen_sounds(args.out / "offscreen_sounds", args.seed)
    existed = sum(results)
    new, seconds = len(results) - existed, time.perf_counter() - begin
    print(
        f"{counted(new, 'clip')} composed in {seconds:.1f} s ({new / seconds:.1f} per second)"
        + (f", {existed} already existed" if existed else "")
    )
    for name, plan in plans.items():
        splits = Counter(spec.clip.split for spec in plan)
        listed = ", ".join(f"{splits[split]} {split}" for split in SPLITS)
        print(f"  {config.path(name, '')}: {counted(len(plan), 'clip')}, {listed}")
    print(f"  {counted(len(assets.categories), 'category', 'categories')}: {', '.join(assets.categories)}")
    first = next(iter(plans))
    print(f"next: python preprocess_{first}.py --root {config.path(first, '')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
