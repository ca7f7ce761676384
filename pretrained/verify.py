"""Check that the networks of this project give, with the public checkpoints, the outputs that others have published.

    python -m pretrained.verify NAME ...   checkpoints, or single checks, by the names that --list shows
    python -m pretrained.verify --all      all checks whose checkpoints and inputs are there; the others are named once
    python -m pretrained.verify --list     the checks, with their sources

The inputs are pictures and sounds that anybody can get: `python -m pretrained.download --inputs` puts them into
pretrained/inputs, or name your own files by --input. The published numbers, their sources and the tolerances are in
pretrained/known_outputs.yaml. A table is printed, and everything goes into OUT/verify.json.
Exit code 1 if a number or a file differs, if nothing was compared, or if something that was asked for is missing: the
file of a named checkpoint, all checkpoints or an input of a named check, or an input that --inputs could download.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from models.weights import list_checkpoints, weights_dir
from pretrained.known_outputs import KNOWN_OUTPUTS, Check, Inputs, KnownOutputs, inputs_dir, read_known_outputs
from utils.cli import InputError, Parser, cli_entry
from utils.option_ranges import DeviceName
from utils.paths import expand_user


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__, prog="python -m pretrained.verify")
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="a checkpoint, such as vggish, or a check, such as vggish/sine-16k")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--all", action="store_true", help="all checks whose checkpoints and inputs are there")
    mode.add_argument("--list", action="store_true", help="list the checks and where their numbers come from")
    folder: dict[str, Any] = {"type": expand_user, "metavar": "DIR"}
    add("--inputs", default=inputs_dir(), help="folder of the inputs (default %(default)s)", **folder)
    add("--input", action="append", default=[], metavar="NAME=FILE", help="your own file of an input; repeatable")
    add("--known", type=expand_user, default=KNOWN_OUTPUTS, metavar="FILE", help="published outputs (%(default)s)")
    add("--device", choices=get_args(DeviceName), default="auto", help="default %(default)s")
    add("--out", default=Path("runs/verify"), help="where verify.json goes (default %(default)s)", **folder)
    args = parser.parse_args(argv)
    if args.all and args.names:
        parser.error("give names or --all, not both")
    if not (args.names or args.all or args.list):
        parser.error("give names, --all or --list")
    return args


def resolve_names(known: KnownOutputs, words: Sequence[str]) -> list[str]:
    """The names of checkpoints and checks; a file stands for its checkpoint.

    Raises:
        InputError: for an unknown name.
    """
    files = {checkpoint.file: checkpoint.name for checkpoint in list_checkpoints() if checkpoint.file}
    names = [files.get(word, word) for word in words]
    if unknown := set(names) - set(files.values()) - {check.id for check in known.checks}:
        raise InputError(f"{min(unknown)}: no such checkpoint or check; --list shows them")
    return names


def select(known: KnownOutputs, names: Sequence[str]) -> dict[str, list[Check]]:
    """The checks that the names select, by checkpoint; all of them without names.

    A checkpoint of which nothing is published has no check but that of its file.
    """
    checks = {check.id for check in known.checks}
    selected: dict[str, list[Check]] = {name: [] for name in names if name not in checks}
    for check in known.checks:
        for checkpoint in check.checkpoints:
            if not names or {check.id, checkpoint} & set(names):
                selected.setdefault(checkpoint, []).append(check)
    return selected


def given_inputs(words: Sequence[str], known: KnownOutputs) -> dict[str, Path]:
    """The files of --input NAME=FILE by name.

    Raises:
        InputError: for another form, an unknown name or a missing file.
    """
    given = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or name not in known.inputs:
            raise InputError(f"--input {word}: expected NAME=FILE with one of {', '.join(known.inputs)}")
        given[name] = expand_user(path)
        if not given[name].exists():
            raise InputError(f"--input {word}: no such file or folder")
    return given


def format_list(known: KnownOutputs) -> str:
    """A line for each check."""
    return "\n".join(
        f"{check.id:32} {check.level} {check.kind:7} {', '.join(check.checkpoints)}; {check.source[2:]}"
        for check in known.checks
    )


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parse(argv)
    known = read_known_outputs(args.known)
    if args.list:
        print(format_list(known))
        return 0
    names = resolve_names(known, args.names)
    selected = select(known, names)
    inputs = Inputs(known.inputs, args.inputs, given_inputs(args.input, known))

    from pretrained.verify_results import describe_missing, format_row, is_asked_for, verify, write_json
    from utils.device import select_device, set_matmul_precision

    device = select_device(args.device)
    set_matmul_precision("fp32")
    results = []
    for result in verify(selected, inputs, device):
        if names and result.verdict == "missing" and not is_asked_for(result, names, known, inputs):
            result = replace(result, verdict="not run")
        results.append(result)
        if not (args.all and result.verdict == "missing"):
            print("\n".join(format_row(result)), flush=True)
        write_json(args.out / "verify.json", results, device.type)
    if args.all:
        print("".join(f"{line}\n" for line in describe_missing(results)), end="")
        results = [result for result in results if result.verdict != "missing"]
    counts = Counter(result.verdict for result in results)
    print(f"{weights_dir()}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items()) or 'no checkpoint'}")
    print(f"all values: {args.out / 'verify.json'}")
    bad = {"mismatch", "failed"} | ({"missing"} if args.names else set())
    return int(any(result.verdict in bad for result in results) or not counts["ok"])


if __name__ == "__main__":
    sys.exit(main())
