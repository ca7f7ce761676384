"""The command line of supervised.evaluate, and the model that it names."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from supervised.model import AVSModel
from supervised.options import RUNTIME_ONLY, Options, check_options
from supervised.weights import load_reference, load_run
from utils.cli import InputError, Parser
from utils.config import from_yaml, option_parser, parse_options, to_yaml
from utils.files import read_json, write_text
from utils.option_ranges import NON_NEGATIVE_INT, POSITIVE_INT
from utils.paths import expand_user, resolve_path
from utils.robustness_report import add_audio_arguments
from utils.run_identity import check_same_data, check_same_options, differing_options, record_data


def build_parser(description: str | None) -> Parser:
    """The command line."""
    parser = Parser(description)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run-dir", type=resolve_path, help="run folder of supervised.train")
    source.add_argument(
        "--reference",
        type=resolve_path,
        metavar="FILE",
        help="state dict saved by the original's, AVSBench's or AVSegFormer's code",
    )
    parser.add_argument(
        "--config", action="append", metavar="FILE", help="with --reference: the row; further --OPTION VALUE may follow"
    )
    parser.add_argument(
        "--out", type=expand_user, metavar="DIR", help="with --reference: folder of the results (see above)"
    )
    parser.add_argument("--root", type=resolve_path, help="root of the data, if they have moved since training")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument(
        "--metric-batch", type=POSITIVE_INT, help="videos that share a threshold in M_F (default: as in the run)"
    )
    parser.add_argument("--batch-size", type=POSITIVE_INT, default=4, help="videos per batch; metrics do not change")
    parser.add_argument("--sheets", type=NON_NEGATIVE_INT, default=0, metavar="N", help="write image sheets of N clips")
    parser.add_argument(
        "--strips", type=NON_NEGATIVE_INT, default=0, metavar="N", help="write images of N clips for the study's page"
    )
    parser.add_argument("--masks", action="store_true", help="write every predicted mask as PNG")
    add_audio_arguments(parser)
    return parser


def open_reference(
    path: Path, words: Sequence[str], out: Path | None
) -> tuple[AVSModel, Options, dict[str, str], Path]:
    """Load a checkpoint of the original's or AVSBench's code, and prepare a folder for its results.

    Args:
        path: of the checkpoint.
        words: of the command line that name the row and its options.
        out: the folder, or None for the default.

    Returns:
        What `load_reference` returns, and the folder.

    Raises:
        InputError: if the checkpoint does not fit the row, or the folder holds something else.
    """
    options, namespace = parse_options(option_parser(Options, None, "supervised.evaluate"), Options, words)
    check_options(options)
    model, options, digests = load_reference(path, options)
    out = out or Path("runs") / "supervised" / f"{Path(str(namespace.config[0])).stem}_{path.stem}"
    if (out / "state.pt").is_file() or (out / "best.safetensors").is_file():
        raise InputError(f"{out} holds a training run; choose another --out")
    config, weights = out / "config.yaml", out / "weights.json"
    if config.is_file():
        previous = from_yaml(Options, config)
        check_same_options(out, previous, options, differing_options(previous, options, RUNTIME_ONLY))
        check_same_data(out, options.data.root, options.data.benchmark)
    recorded = read_json(weights) if weights.is_file() else digests
    if not isinstance(recorded, dict) or sorted(recorded.values()) != sorted(digests.values()):
        raise InputError(f"{out} holds the results of another checkpoint; choose another --out")
    # With several processes, all write the same.
    write_text(config, to_yaml(options))
    write_text(weights, json.dumps(digests, indent=1) + "\n")
    record_data(out, options.data.root, options.data.benchmark)
    return model, options, digests, out


def open_model(
    description: str | None, argv: Sequence[str] | None
) -> tuple[Namespace, AVSModel, Options, dict[str, str]]:
    """Parse the command line and load what it names.

    Args:
        description: of the command, for --help.
        argv: the arguments; default: sys.argv.

    Returns:
        The arguments, whose `run_dir` is the folder of the results, and what `load_run` returns.

    Raises:
        InputError: if something is missing, or does not fit.
    """
    parser = build_parser(description)
    args, words = parser.parse_known_args(argv)
    if args.reference is None:
        if words or args.config or args.out:
            parser.error("--config, --out and options of the row belong to --reference; a run folder has its own")
        return args, *load_run(args.run_dir)
    if not args.config:
        parser.error("--reference needs --config: the row that the checkpoint was trained as")
    words = [word for path in args.config for word in ("--config", path)] + words
    model, options, digests, args.run_dir = open_reference(args.reference, words, args.out)
    return args, model, options, digests
