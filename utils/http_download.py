"""Resumable downloads over HTTP."""

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.cli import InputError

CHUNK_BYTES = 1 << 20  # read at a time
TIMEOUT = 60.0  # seconds without a response
MAX_TRIES = 3  # consecutive connections without new data
RETRY_DELAY = 2.0  # seconds between them


def download_url(url: str, partial: Path, size: int | None = None) -> None:
    """Download into `partial`, starting at its current length and reconnecting when the connection is lost.

    Args:
        url: of the file.
        partial: the file to append to; what has been received stays there after an error.
        size: of the file in bytes, if known.

    Raises:
        InputError: if the server sends something else, or no data arrives in `MAX_TRIES` connections.
        OSError: if the server cannot be reached or the file cannot be written.
    """
    received, tries = _length(partial), 0
    while size is None or _length(partial) != size:
        try:
            return _stream(url, partial, size)
        except ConnectionError as error:
            tries = 0 if _length(partial) > received else tries + 1
            received = max(received, _length(partial))
            if tries == MAX_TRIES:
                raise InputError(f"{error}; run the command again to resume") from error
            time.sleep(RETRY_DELAY)


def _stream(url: str, partial: Path, size: int | None) -> None:
    """Download over one connection. Raises ConnectionError if it ends early."""
    start = _length(partial)
    headers = {"User-Agent": "sam4avs"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise InputError(f"{url}: the server responds {error.code} {error.reason}") from error
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return  # the partial file is complete
        partial.unlink()
        raise ConnectionError(f"{url}: the partial file is longer than the file") from error
    with response:
        start, total = _range(url, response, start)
        if size is not None and total not in (size, None):
            raise InputError(f"{url}: the server announces {total} bytes instead of {size}")
        name = partial.name.removesuffix(".partial")
        bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, unit_divisor=1024, disable=None)
        with partial.open("ab" if start else "wb") as file, bar:
            while chunk := _read_chunk(url, response):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _length(partial) < total:
        raise ConnectionError(f"{url}: the connection ended at {_length(partial)} of {total} bytes")


def _range(url: str, response: Any, start: int) -> tuple[int, int | None]:
    """(offset of the response, size of the whole file if stated), in bytes. A server may ignore the requested range."""
    if response.headers.get_content_type() == "text/html":
        raise InputError(f"{url}: the server responds with a web page, not with a file")
    if response.status != 206:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length else None
    sent, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    if sent.partition("-")[0] != str(start):
        raise InputError(f"{url}: the server sends another range than requested ({sent})")
    return start, int(total) if total.isdigit() else None


def _read_chunk(url: str, response: Any) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (http.client.HTTPException, OSError) as error:
        raise ConnectionError(f"{url}: the connection was lost ({error or type(error).__name__})") from error


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
