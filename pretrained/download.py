"""Download public checkpoints, or check those that were obtained otherwise.

    python -m pretrained.download NAME ...         these files, by the names that --list shows, or by file name
    python -m pretrained.download --all            every file that a configuration of the study needs
    python -m pretrained.download --check [NAME]   report for each file whether it is ok, wrong or missing
    python -m pretrained.download --list           names, sizes, and what needs them
    python -m pretrained.download --inputs [NAME]  the pictures and sounds of pretrained.verify, instead of checkpoints

Running the command again resumes an interrupted download. A file gets its final name only after its size and checksum
have been verified, as far as the publisher states them. If one file fails, the others are still downloaded.
Exit code 1 if a file failed or is wrong, or if a file named with --check is missing.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import argparse
import http.client
import sys
import urllib.error
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.weights import Checkpoint, list_checkpoints, weights_dir
from pretrained.hub import check_repository, download_repository
from pretrained.known_outputs import inputs_dir, list_inputs, read_known_outputs
from utils.cli import InputError, Parser, cli_entry
from utils.files import sha256
from utils.http_download import download_url
from utils.lock import exclusive_lock
from utils.paths import expand_user

SHOWN_DIGITS = 16  # of a sha256


class DownloadResult(NamedTuple):
    """The state of a file.

    Attributes:
        status: "downloaded", "ok" (verified), "unverified" (no checksum is published), "missing", "wrong", "manual" (to
            be obtained in a browser) or "failed".
        detail: a reason, a checksum or what to do.
    """

    status: str
    detail: str = ""


def validation_error(checkpoint: Checkpoint, path: Path) -> str:
    """Why the file at `path` is not the published one; empty if nothing indicates that."""
    size = path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        return f"has {size} bytes instead of {checkpoint.size}"
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start or start.startswith((b"<!doctype", b"<html", b"version https://git-lfs")):
        return "is a web page or a placeholder, not the file itself" if start else "is empty"
    if checkpoint.digest and not (actual := sha256(path)).startswith(checkpoint.digest):
        return f"has sha256 {actual[:SHOWN_DIGITS]}... instead of {_shorten(checkpoint.digest)}"
    return ""


def _shorten(digest: str) -> str:
    return digest if len(digest) <= SHOWN_DIGITS else f"{digest[:SHOWN_DIGITS]}..."


def check_file(checkpoint: Checkpoint, folder: Path) -> DownloadResult:
    """Compare the file in `folder` with the published size and checksum."""
    if checkpoint.file is None:
        return DownloadResult("manual", checkpoint.instructions)
    path = folder / checkpoint.file
    if path.is_dir():
        return DownloadResult(*check_repository(checkpoint, path))
    if not path.is_file():
        how = checkpoint.command if checkpoint.downloadable else checkpoint.instructions
        return DownloadResult("missing", how)
    if reason := validation_error(checkpoint, path):
        return DownloadResult("wrong", f"{reason}; delete it and download it again")
    if not checkpoint.digest:
        return DownloadResult("unverified", f"no checksum is published; its sha256 is {sha256(path)}")
    published = "" if checkpoint.sha256 else " (only these digits are published)"
    return DownloadResult("ok", f"sha256 {_shorten(checkpoint.digest)}{published}")


def download_file(checkpoint: Checkpoint, folder: Path) -> DownloadResult:
    """Download a file, or a folder from the hub, into `folder` unless it exists; what exists is checked.

    Raises:
        InputError: if it cannot be downloaded or what arrived is not the published file.
        OSError: if the server cannot be reached or the file cannot be written.
    """
    if checkpoint.file is None or not checkpoint.downloadable:
        raise InputError(f"cannot be downloaded by a program: {checkpoint.instructions}")
    path = folder / checkpoint.file
    if path.exists():
        return check_file(checkpoint, folder)
    if checkpoint.url is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(path.with_name(f".{path.name}.lock"), f"downloads {path.name}"):
            return DownloadResult("downloaded", download_repository(checkpoint, path))
    partial = path.with_name(f"{path.name}.partial")
    with exclusive_lock(path.with_name(f".{path.name}.lock"), f"downloads {path.name}"):
        if not checkpoint.digest:
            partial.unlink(missing_ok=True)  # without a checksum, a mix of two versions would go unnoticed
        download_url(checkpoint.url, partial, checkpoint.size)
        if reason := validation_error(checkpoint, partial):
            partial.unlink()
            raise InputError(f"what {checkpoint.url} sent {reason}; it was deleted, run the command again")
        partial.replace(path)
    return DownloadResult("downloaded", check_file(checkpoint, folder).detail)


def process(checkpoint: Checkpoint, folder: Path, only_check: bool) -> DownloadResult:
    """Check or download a file; every error becomes the status "failed"."""
    try:
        return check_file(checkpoint, folder) if only_check else download_file(checkpoint, folder)
    except InputError as error:
        return DownloadResult("failed", str(error))
    except urllib.error.URLError as error:
        return DownloadResult("failed", f"{checkpoint.url}: cannot be reached ({error.reason})")
    except (OSError, http.client.HTTPException) as error:
        return DownloadResult("failed", f"{checkpoint.file}: {error}")


def format_list(checkpoints: Sequence[Checkpoint]) -> str:
    """A table of names, files, sizes, uses and restrictions."""
    verified = {name for check in read_known_outputs().checks for name in check.checkpoints}

    def line(checkpoint: Checkpoint) -> str:
        megabytes = checkpoint.megabytes if checkpoint.size is None else checkpoint.size / 1e6
        size = "" if megabytes is None else f"{megabytes:.1f} MB"
        uses = "; ".join((*checkpoint.used_by, *checkpoint.recipes, *checkpoint.selected_by))
        uses = uses or ("only pretrained.verify" if checkpoint.name in verified else "nothing")
        uses += " (gated)" * checkpoint.gated + " (non-commercial)" * checkpoint.non_commercial
        return f"{checkpoint.name:24} {checkpoint.file or '(folder)':33} {size:>9}  {uses}"

    head = f"{'name':24} {'file':33} {'size':>9}  needed by"
    return "\n".join([head, *map(line, checkpoints)])


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[Checkpoint]]:
    """Parse the command line; returns its options and the checkpoints that it selects."""
    parser = Parser(__doc__, prog="python -m pretrained.download")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a name or file name of pretrained/checkpoints.yaml")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--all", action="store_true", help="every file that a configuration of the study needs")
    mode.add_argument("--check", action="store_true", help="check existing files, download nothing")
    mode.add_argument("--list", action="store_true", help="list the files, download nothing")
    parser.add_argument("--inputs", action="store_true", help="the inputs of pretrained.verify in place of checkpoints")
    folders = f"{weights_dir()}, with --inputs {inputs_dir()}"
    parser.add_argument("--to", type=expand_user, metavar="DIR", help=f"folder of the files (default {folders})")
    args = parser.parse_args(argv)
    args.to = args.to or (inputs_dir() if args.inputs else weights_dir())
    args.all |= args.inputs and not (args.names or args.check or args.list)
    known = list_inputs() if args.inputs else list_checkpoints()
    if unknown := set(args.names) - {c.name for c in known} - {c.file for c in known}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(c.name for c in known)}")
    if args.all and args.names:
        parser.error("give names or --all, not both")
    if not (args.names or args.all or args.check or args.list):
        parser.error("give names, --all, --check or --list")
    if args.names:
        return args, [c for c in known if {c.name, c.file} & set(args.names)]
    return args, [c for c in known if not args.all or (c.used_by and c.downloadable)]


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args, selected = parse(argv)
    if args.list:
        print(format_list(selected))
        return 0
    if args.to.exists() and not args.to.is_dir():
        raise InputError(f"{args.to}: not a folder")
    results = []
    for checkpoint in selected:
        results.append(process(checkpoint, args.to, args.check))
        print(f"{results[-1].status:10} {checkpoint.file or checkpoint.name:33} {results[-1].detail}", flush=True)
    counts = Counter(result.status for result in results)
    print(f"{args.to}: {', '.join(f'{count} {status}' for status, count in counts.items())}")
    bad = {"failed", "wrong"} | ({"missing", "manual"} if args.names else set())
    return int(any(result.status in bad for result in results))


if __name__ == "__main__":
    sys.exit(main())
