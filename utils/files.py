"""Files that are either whole or absent: written under a temporary name beside the target, then renamed."""

import hashlib
import io
import json
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from PIL import Image

from utils.cli import InputError
from utils.paths import describe_siblings

MAX_PIXELS = 8192 * 4352  # pixels of a picture (8K), beyond which it is not decoded
MAX_ARRAY_BYTES = 1 << 24  # bytes of a .npy file, beyond which it is not read


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


def wav_bytes(samples: np.ndarray, sample_rate: int, comment: str = "") -> bytes:
    """Encode int16 samples, (n,) or (n, channels), as a PCM16 WAV file; a comment goes into its RIFF INFO list."""
    buffer = io.BytesIO()
    channels = samples.shape[1] if samples.ndim == 2 else 1
    with soundfile.SoundFile(buffer, "w", sample_rate, channels, format="WAV", subtype="PCM_16") as file:
        if comment:
            file.comment = comment
        file.write(samples)
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """Encode an array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Read an image as (H, W, 3) RGB uint8, or as OpenCV's flags say. Raises InputError if it is none, or missing."""
    if not path.is_file():
        raise InputError(f"{path}: no such file{describe_siblings(path)}")
    content = path.read_bytes() or b"\0"
    try:
        height, width = _size(content)
        if height * width > MAX_PIXELS:
            raise InputError(f"{path}: a picture of {width}×{height} is not read")
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise InputError(f"{path}: not a readable image") from error
    if image is None:
        raise InputError(f"{path}: not a readable image")
    return image


def _size(content: bytes) -> tuple[int, int]:
    """Height and width that a picture claims; of kinds that cannot be told, 0."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):  # nearly all are
        return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("ignore")
            return image.height, image.width
    except Image.DecompressionBombError:
        return MAX_PIXELS, 2
    except Exception:  # what PIL raises on damage has no base in common
        return 0, 0


def read_npy(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read a .npy file of numbers in that shape. Raises InputError for any other, having made no array of it."""
    try:
        if path.stat().st_size > MAX_ARRAY_BYTES:
            raise ValueError("too large")
        file = io.BytesIO(path.read_bytes())
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, _, kind = read(file)
        if kind.kind not in "fiu":
            raise ValueError(f"of {kind}, not of numbers")
        if found == shape:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # of many kinds, where a header is damaged
        raise InputError(f"{path}: not a readable .npy file ({error}); preprocess the clip again") from error
    raise InputError(f"{path}: has shape {found}, not {shape}; preprocess the clip again")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises InputError if it is missing, unreadable or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
