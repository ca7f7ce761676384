"""Read and write files. Writes are atomic: to a temporary file in the same folder, which is then renamed."""

import hashlib
import io
import json
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
from PIL import Image

from utils.cli import InputError
from utils.paths import describe_siblings

MAX_PIXELS = 8192 * 4352  # larger images (than 8K) are not decoded
MAX_ARRAY_BYTES = 1 << 24  # larger .npy files are not read


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` if the block succeeds, and removed if it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove the temporary files of killed processes below a folder. No other process may be writing to it."""
    for stale in folder.rglob(".*.partial*"):
        stale.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically. On an OSError, such as a full disk, `path` is left as it was."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def png_bytes(image: np.ndarray, compress: bool = True) -> bytes:
    """Encode an image as PNG.

    Args:
        image: (H, W, 3) RGB or (H, W) gray, uint8.
        compress: Without compression a frame is half as large again, but written and read about ten times as fast.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    uncompressed = [cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    return cv2.imencode(".png", bgr, [] if compress else uncompressed)[1].tobytes()


def jpeg_bytes(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode an (H, W, 3) RGB uint8 image as JPEG; quality from 0 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def webp_bytes(image: np.ndarray, quality: int = 70) -> bytes:
    """Encode an (H, W, 3) RGB uint8 image as WebP, for pages with many images; quality from 0 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def mp3_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Encode int16 samples, (n,) or (n, channels), as MP3."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="MP3")
    return buffer.getvalue()


def wav_bytes(samples: np.ndarray, sample_rate: int, comment: str = "") -> bytes:
    """Encode int16 samples, (n,) or (n, channels), as 16-bit PCM WAV; the comment goes into its RIFF INFO list."""
    buffer = io.BytesIO()
    channels = samples.shape[1] if samples.ndim == 2 else 1
    with soundfile.SoundFile(buffer, "w", sample_rate, channels, format="WAV", subtype="PCM_16") as file:
        if comment:
            file.comment = comment
        file.write(samples)
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """Encode an array in NumPy's .npy format."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def read_image(path: Path, flags: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Read an image file.

    Args:
        path: In any format that OpenCV reads.
        flags: OpenCV's; by default the image is (H, W, 3) RGB uint8.

    Raises:
        InputError: The file is missing, not an image, or has more than MAX_PIXELS pixels.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{describe_siblings(path)}")
    content = path.read_bytes() or b"\0"
    try:
        height, width = _image_size(content)
        if height * width > MAX_PIXELS:
            raise InputError(f"{path}: is too large ({width}×{height})")
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise InputError(f"{path}: not a readable image") from error
    if image is None:
        raise InputError(f"{path}: not a readable image")
    return image


def _image_size(content: bytes) -> tuple[int, int]:
    """The height and width in an image's header; 0 for unknown formats."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):  # the usual case
        return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
            warnings.simplefilter("ignore")
            return image.height, image.width
    except Image.DecompressionBombError:
        return MAX_PIXELS, 2
    except Exception:  # PIL raises many types on damaged files
        return 0, 0


def read_npy(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an array of numbers from a .npy file.

    Args:
        path: The file.
        shape: The expected shape; the array is only read if the header has it.

    Raises:
        InputError: The file is not readable, too large, or has another shape or dtype.
    """
    try:
        if path.stat().st_size > MAX_ARRAY_BYTES:
            raise ValueError("too large")
        file = io.BytesIO(path.read_bytes())
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        file_shape, _, dtype = read_header(file)
        if dtype.kind not in "fiu":
            raise ValueError(f"dtype {dtype} is not numeric")
        if file_shape == shape:
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # NumPy raises many types on damaged headers
        raise InputError(f"{path}: not a readable .npy file ({error}); preprocess the clip again") from error
    raise InputError(f"{path}: has shape {file_shape}, not {shape}; preprocess the clip again")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises InputError if it is missing, unreadable or not JSON, or has a key twice."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a key that it has twice, of which json would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key '{next(key for key in keys if keys.count(key) > 1)}' twice")
    return found


def sha256(path: Path) -> str:
    """The hexadecimal sha256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
