"""Score masks that any model has saved as PNG, against the ground truth of AVSBench, under named rules.

    python score.py --benchmark s4 --root avsbench_data/Single-source --masks DIR
    python score.py --benchmark ms3 --root ROOT --masks DIR --other DIR2 DIR3     several models side by side
    python score.py ... --masks DIR --audio-condition silent --original DIR2      masks predicted under silence

A mask belongs to the clip whose name its own name or its folder has, and to the second whose number ends its name, from
0 or from 1: the layouts of AVSBench, AVSegFormer, Sam4AVS, COMBO and AL-Ref-SAM2 (scoring/folders.py). PNGs may be
binary, probabilities (gray, 0 to 255 or 65535), of a palette, or class indices; --format says which if it is not clear.

Rules for S4 and MS3: m_j, m_f_batch_1, m_f_batch_2, m_f_batch_4, m_f_whole_set, iou_dataset; for AVSS: miou_* and f_*
of published, published_nobg, real, seen, truth (recommended) and foreground, and miou_pooled (docs/scoring.md,
docs/metrics.md). Two numbers can be compared only under the same rule.

Masks that are missing, misshapen or unreadable are counted and named, and the model gets no score unless --incomplete
allows it; the exit code is then 1. OUT (default runs/score) gets scores.json, scores.md, per_video.csv, per_frame.csv,
for AVSS per_class.csv, and problems.csv.
"""

if __name__ == "__main__":
    from utils.environment import prepare_process

    prepare_process()

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from scoring import binary, semantic
from scoring.binary import CONDITION_RULES, RULES, Incomplete
from scoring.decode import FORMATS
from scoring.problems import describe, serious
from scoring.tables import format_table, frame_rows, video_rows, write_csv
from utils.cli import InputError, Parser, cli_entry
from utils.files import write_text
from utils.labels import UnknownColors
from utils.layout import BENCHMARKS, SPLITS, AVSBench, Clip
from utils.option_ranges import POSITIVE_INT
from utils.paths import expand_user, resolve_path
from utils.words import counted

CONDITIONS = {"original": False, "mixed": False, "silent": True, "noise": True, "shuffled": True, "offscreen": True}


def build_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("--benchmark", choices=tuple(BENCHMARKS), required=True)
    parser.add_argument("--root", type=resolve_path, required=True, help="folder of the meta CSV")
    parser.add_argument("--masks", type=resolve_path, required=True, metavar="DIR", help="the masks of a model")
    parser.add_argument(
        "--other", type=resolve_path, nargs="+", default=[], action="extend", metavar="DIR", help="further models"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the models, in order (default: their folders)")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--format", choices=FORMATS, help="what the PNGs say (default: as a sample of them looks)")
    parser.add_argument("--rule", nargs="+", metavar="RULE", help="rules to print (default: all)")
    parser.add_argument(
        "--audio-condition",
        choices=CONDITIONS,
        help="the sound with which the masks were predicted: prints the measures of robustness instead of the rules",
    )
    parser.add_argument(
        "--original",
        type=resolve_path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="with --audio-condition: the masks of each model under the original sound",
    )
    parser.add_argument(
        "--incomplete",
        choices=get_args(Incomplete),
        default="refuse",
        help="masks that are missing or unusable: refuse a score, score them as empty, or skip their clips",
    )
    parser.add_argument("--resize", action="store_true", help="resize masks of another size to the ground truth's")
    parser.add_argument(
        "--soft-masks", choices=("refuse", "dither"), default="refuse", help="gray ground truths, as in training"
    )
    parser.add_argument(
        "--unknown-colors",
        choices=get_args(UnknownColors),
        default="refuse",
        help="pixels of AVSS's ground truths that are no class: refuse, or take for background as AVSBench does",
    )
    parser.add_argument("--jobs", type=POSITIVE_INT, help="threads (default: one per core)")
    parser.add_argument("--out", type=expand_user, default=Path("runs/score"), help="default %(default)s")
    return parser


def model_names(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """A different name for each model: as given, or the shortest ending of its path that tells it from the others."""
    if names and len(names) != len(folders):
        raise InputError(f"--names: {counted(len(names), 'name')} for {counted(len(folders), 'model')}")
    if names:
        return list(names)
    paths = [folder.resolve() for folder in folders]
    for length in range(1, max(len(path.parts) for path in paths)):
        shortened = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(shortened)) == len(paths):
            return shortened
    raise InputError("--other: the same folder was given twice")


def choose_rules(args: argparse.Namespace, scores: Sequence[dict[str, float]]) -> list[str]:
    """The rules to print, in order; InputError for unknown ones."""
    rules = list(CONDITION_RULES if args.audio_condition else RULES)
    known = semantic.RULES if args.benchmark == "avss" and not args.audio_condition else rules
    for rule in args.rule or []:
        if rule not in known:
            raise InputError(f"--rule {rule}: choose from {', '.join(known)}")
    return [rule for rule in args.rule or known if any(rule in score for score in scores)]


def write_results(
    args: argparse.Namespace, scores: Sequence[Any], values: Sequence[dict[str, float]], clips: Sequence[Clip]
) -> str:
    """Write all files; returns the table."""
    rules = choose_rules(args, values)
    rows = []
    for score, numbers in zip(scores, values, strict=True):
        cells = [f"{numbers[rule]:.4f}" if rule in numbers else "–" for rule in rules]
        rows.append([score.model.name, *cells, str(len(score.clips)), score.model.form])
    table = format_table(["model", *rules, "clips", "read as"], rows)
    record: dict[str, Any] = {
        "benchmark": args.benchmark,
        "split": args.split,
        "clips": len(clips),
        "audio": args.audio_condition or "original",
        "incomplete": args.incomplete,
        "models": {
            score.model.name: {
                "folder": str(score.model.folder.root),
                "format": score.model.form,
                "scored_clips": len(score.clips),
                "problems": len(score.problems),
                **numbers,
            }
            for score, numbers in zip(scores, values, strict=True)
        },
    }
    if args.benchmark == "avss":
        unknown = scores[0].unknown  # of the ground truths, which are the same for all models
        record["unknown_colors"] = {"ground_truths": len(unknown), "pixels": sum(unknown)}
    write_text(args.out / "scores.json", json.dumps(record, indent=2) + "\n")
    write_text(args.out / "scores.md", table + "\n")
    head, areas = ["model", "category", "name"], ("ground_truth_area", "predicted_area")
    if args.benchmark == "avss":
        write_csv(args.out / "per_video.csv", [*head, "frames", "miou", "f"], semantic.video_rows(scores, clips))
        write_csv(args.out / "per_frame.csv", [*head, "second", "miou", "f"], semantic.frame_rows(scores, clips))
        write_csv(args.out / "per_class.csv", ["model", *semantic.CLASS_COLUMNS], semantic.class_rows(scores))
    else:
        write_csv(args.out / "per_video.csv", [*head, "frames", "m_j", "m_f", *areas], video_rows(scores, clips))
        write_csv(args.out / "per_frame.csv", [*head, "second", "iou", "f_at_half", *areas], frame_rows(scores, clips))
    problems = [[s.model.name, p.kind, p.where, p.detail] for s in scores for p in s.problems]
    write_csv(args.out / "problems.csv", ["model", "kind", "where", "detail"], problems)
    return table


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    begin = time.perf_counter()
    folders = [args.masks, *args.other]
    names = model_names(folders, args.names)
    if args.original and (not args.audio_condition or len(args.original) != len(folders)):
        raise InputError("--original needs --audio-condition, and one folder for each model")
    if args.unknown_colors != "refuse" and args.benchmark != "avss":
        raise InputError(f"--unknown-colors is of avss; the ground truths of {args.benchmark} have no classes")
    data = AVSBench(args.root, args.benchmark)
    clips = data.split(args.split)
    if not clips:
        raise InputError(f"{data.root}: no {args.split} clips in {data.benchmark.meta}")
    scoring: Any = semantic if args.benchmark == "avss" else binary
    open_model = scoring.open_model
    models = [open_model(folder, name, clips, args.format) for folder, name in zip(folders, names, strict=True)]
    for model, folder in zip(models, args.original, strict=bool(args.original)):
        model.original = open_model(folder, model.name, clips, args.format)
    scores = scoring.score_models(
        data,
        clips,
        models,
        incomplete=args.incomplete,
        resize=args.resize,
        jobs=args.jobs,
        **({"unknown_colors": args.unknown_colors} if args.benchmark == "avss" else {"soft_masks": args.soft_masks}),
    )
    condition = bool(args.audio_condition)
    negative = condition and CONDITIONS[args.audio_condition]
    refused = [not score.clips or (args.incomplete == "refuse" and bool(serious(score.problems))) for score in scores]
    values = [{} if no else score.result(condition, negative) for score, no in zip(scores, refused, strict=True)]
    print(write_results(args, scores, values, clips))
    if args.benchmark == "avss" and (unknown := scores[0].unknown):
        pixels, labels = counted(sum(unknown), "pixel"), counted(len(unknown), "ground truth")
        print(f"{pixels} of no class in {labels} taken for background", file=sys.stderr)
    for score in scores:
        for line in describe(score.problems):
            print(f"{score.model.name}: {line}", file=sys.stderr)
    audio = f", {args.audio_condition} audio" if args.audio_condition else ""
    seconds = time.perf_counter() - begin
    print(f"{args.benchmark}, {args.split}{audio}: {counted(len(clips), 'clip')} in {seconds:.1f} s. {args.out}")
    if any(refused):
        print(
            f"error: no score for {sum(refused)} of {counted(len(scores), 'model')}; {args.out}/problems.csv",
            file=sys.stderr,
        )
    return 1 if any(refused) else 0


if __name__ == "__main__":
    sys.exit(main())
