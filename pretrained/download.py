"""Fetch the public checkpoints of the study, or check those that were brought by hand.

    python -m pretrained.download NAME ...         these files, by the names that --list gives, or by file name
    python -m pretrained.download --all            every file that some row of the study needs
    python -m pretrained.download --check [NAME]   say of each file whether it is well, wrong or missing
    python -m pretrained.download --list           names, sizes, and what needs them

A download that was cut is resumed by the same command. A file gets its name only after its size and checksum, as
far as the publisher states them, have proved right. One failure does not stop the others.
Exit code 1 if a file failed or is wrong, or if a file named with --check is missing.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from models.registry import Checkpoint, list_checkpoints, weights_dir
from utils.cli import InputError, Parser, cli_entry
from utils.files import sha256
from utils.lock import exclusive_lock
from utils.paths import expand_user

CHUNK_BYTES = 1 << 20  # bytes read at a time
TIMEOUT = 60.0  # seconds without an answer
MAX_TRIES = 3  # connections in a row that bring nothing new
RETRY_DELAY = 2.0  # seconds between them


class DownloadResult(NamedTuple):
    """What became of a file: fetched, well, unproven, by hand, missing, wrong or failed; and a remark."""

    status: str
    remark: str = ""


def validation_error(entry: Checkpoint, path: Path) -> str:
    """What tells that the file at `path` is not the published one; empty if nothing does."""
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        return f"has {size} bytes instead of {entry.size}"
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start or start.startswith((b"<!doctype", b"<html", b"version https://git-lfs")):
        return "is a web page or a placeholder, not the file itself" if start else "is empty"
    if entry.digest and not (found := sha256(path)).startswith(entry.digest):
        return f"has sha256 {found[:16]}... instead of {entry.digest[:16]}{'...' if entry.digest[16:] else ''}"
    return ""


def check_entry(entry: Checkpoint, folder: Path) -> DownloadResult:
    """Compare the file in `folder` with what is published."""
    if entry.file is None:
        return DownloadResult("by hand", entry.how)
    path = folder / entry.file
    if path.is_dir():
        return DownloadResult("unproven", "a folder, for which no checksums are published")
    if not path.is_file():
        return DownloadResult(
            "missing", entry.how if entry.url is None else f"python -m pretrained.download {entry.name}"
        )
    if reason := validation_error(entry, path):
        return DownloadResult("wrong", f"{reason}; remove it and fetch it again")
    if not entry.digest:
        return DownloadResult("unproven", f"no checksum is published; its sha256 is {sha256(path)}")
    return DownloadResult(
        "well", f"sha256 {entry.digest[:16]}{'...' if entry.digest[16:] else ', all that is published'}"
    )


def download_entry(entry: Checkpoint, folder: Path) -> DownloadResult:
    """Download a file into `folder` unless it is there. Raises InputError or OSError; see `outcome`."""
    if entry.url is None or entry.file is None:
        raise InputError(f"cannot be fetched by a program: {entry.how}")
    path = folder / entry.file
    if path.exists():
        return check_entry(entry, folder)
    partial = path.with_name(f"{path.name}.partial")
    with exclusive_lock(path.with_name(f".{path.name}.lock"), f"fetches {path.name}"):
        if not entry.digest:
            partial.unlink(missing_ok=True)  # nothing could tell whether an old beginning fits a new end
        download_url(entry.url, partial, entry.size)
        if reason := validation_error(entry, partial):
            partial.unlink()
            raise InputError(f"what {entry.url} sent {reason}; it was thrown away, run again")
        partial.replace(path)
    return DownloadResult("fetched", check_entry(entry, folder).remark)


def download_url(url: str, partial: Path, size: int | None = None) -> None:
    """Bring `partial` to its full length, going on where it ends and connecting again when cut.

    size: length in bytes if known; a server that announces another is not listened to.
    Raises InputError or OSError; what has come stays for the next time.
    """
    reached, tries = _length(partial), 0
    while size is None or _length(partial) != size:
        try:
            return _stream(url, partial, size)
        except ConnectionError as error:
            tries = 0 if _length(partial) > reached else tries + 1
            reached = max(reached, _length(partial))
            if tries == MAX_TRIES:
                raise InputError(f"{error}; run again to go on") from error
            time.sleep(RETRY_DELAY)


def _stream(url: str, partial: Path, size: int | None) -> None:
    """One connection. Raises ConnectionError if it ends early."""
    have = _length(partial)
    headers = {"User-Agent": "sam4avs"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise InputError(f"{url}: the server answers {error.code} {error.reason}") from error
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return  # nothing is left to send
        partial.unlink()
        raise ConnectionError(f"{url}: the partial file is longer than the file") from error
    with response:
        have, total = _extent(url, response, have)
        if size is not None and total not in (size, None):
            raise InputError(f"{url}: the server announces {total} bytes instead of {size}")
        name = partial.name.removesuffix(".partial")
        bar = tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with partial.open("ab" if have else "wb") as file, bar:
            while block := _block(url, response):
                file.write(block)
                bar.update(len(block))
    if total is not None and _length(partial) < total:
        raise ConnectionError(f"{url}: the connection ended at {_length(partial)} of {total} bytes")


def _extent(url: str, response: Any, have: int) -> tuple[int, int | None]:
    """(where the answer begins, length of the whole file if told), in bytes. A server may ignore the range."""
    if response.headers.get_content_type() == "text/html":
        raise InputError(f"{url}: the server answers with a web page, not with a file")
    if response.status != 206:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    begin, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if begin.partition("-")[0] != str(have):
        raise InputError(f"{url}: the server sends another part than it was asked for ({begin})")
    return have, int(total) if total.isdigit() else None


def _block(url: str, response: Any) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:
        raise ConnectionError(f"{url}: the connection was cut ({error or type(error).__name__})") from error


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def process_entry(entry: Checkpoint, folder: Path, only_check: bool) -> DownloadResult:
    """`check` or `fetch`, with whatever went wrong told in the outcome."""
    try:
        return check_entry(entry, folder) if only_check else download_entry(entry, folder)
    except InputError as error:
        return DownloadResult("failed", str(error))
    except urllib.error.URLError as error:
        return DownloadResult("failed", f"{entry.url}: cannot be reached ({error.reason})")
    except (OSError, http.client.HTTPException) as error:
        return DownloadResult("failed", f"{entry.file}: {error}")


def _listing(known: Sequence[Checkpoint]) -> str:
    def line(entry: Checkpoint) -> str:
        size = "" if entry.size is None else f"{entry.size / 1e6:.1f} MB"
        needed = "; ".join(entry.used_by) or "not needed"
        return f"{entry.name:20} {entry.file or '(folder)':33} {size:>9}  {needed}"

    return "\n".join(line(entry) for entry in known)


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a name or a file name of pretrained/checkpoints.yaml")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--all", action="store_true", help="every file that some row of the study needs")
    mode.add_argument("--check", action="store_true", help="fetch nothing, check what is there")
    mode.add_argument("--list", action="store_true", help="fetch nothing, list the files")
    parser.add_argument(
        "--to", type=expand_user, default=weights_dir(), metavar="DIR", help="folder of the files (%(default)s)"
    )
    args = parser.parse_args(argv)
    known = list_checkpoints()
    chosen = [entry for entry in known if {entry.name, entry.file} & set(args.names)]
    if unknown := set(args.names) - {entry.name for entry in known} - {entry.file for entry in known}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(entry.name for entry in known)}")
    if args.list:
        print(_listing(chosen or known))
        return 0
    if args.all and args.names:
        parser.error("name files or say --all, not both")
    if not (args.names or args.all or args.check):
        parser.error("name files, or say --all, --check or --list")
    if args.to.exists() and not args.to.is_dir():
        raise InputError(f"{args.to}: not a folder")
    chosen = chosen or [entry for entry in known if args.check or (entry.used_by and entry.url)]

    results = []
    for entry in chosen:
        results.append(process_entry(entry, args.to, args.check))
        print(f"{results[-1].status:9} {entry.file or entry.name:33} {results[-1].remark}", flush=True)
    counts = {status: sum(result.status == status for result in results) for status, _ in results}
    print(f"{args.to}: {', '.join(f'{count} {status}' for status, count in counts.items())}")
    bad = {"failed", "wrong"} | ({"missing", "by hand"} if args.names else set())
    return int(any(result.status in bad for result in results))


if __name__ == "__main__":
    sys.exit(main())
