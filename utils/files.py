"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

import hashlib
import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import soundfile

from utils.cli import InputError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block succeeds and vanishes when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what killed processes were writing below a folder in which no other is at work."""
    for stale in folder.rglob(".*.partial*"):
        stale.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically. Raises OSError (a full disk, say) with nothing left at `path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def png_bytes(image: np.ndarray, compress: bool = True) -> bytes:
    """Encode an (H, W, 3) RGB or an (H, W) grey uint8 image.

    Without compression a frame takes half as much again on disk, but is written and read some ten times as fast.
    """
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    as_it_is = [cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    return cv2.imencode(".png", ordered, [] if compress else as_it_is)[1].tobytes()


def jpeg_bytes(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode an (H, W, 3) RGB uint8 image for people to look at; quality 0 to 100."""
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", ordered, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def webp_bytes(image: np.ndarray, quality: int = 70) -> bytes:
    """Encode an (H, W, 3) RGB uint8 image for a page that holds many; quality 0 to 100."""
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".webp", ordered, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def mp3_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encode int16 samples, (n,) or (n, channels), as an MP3 file, for a page that plays them."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="MP3")
    return buffer.getvalue()


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encode int16 samples, (n,) or (n, channels), as a PCM16 WAV file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """Encode an array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_image(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) RGB uint8. Raises InputError if it is missing or no image."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    image = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise InputError(f"{path}: not a readable image")
    return image


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
