"""Read the log-mel examples of a clip: our .npy files, or the pickles that AVSBench distributes."""

import numpy as np

from utils.audio import EXAMPLE_FRAMES, MEL_BANDS
from utils.cli import InputError
from utils.files import read_npy
from utils.layout import AVSBench, Clip


def read_log_mel(data: AVSBench, clip: Clip) -> np.ndarray:
    """Read the log-mel examples of a clip, one per frame, as float32 (frames, 1, 96, 64).

    Raises:
        InputError: The file is missing or damaged, has another shape, or has NaN or infinite values.
    """
    path, shape = data.log_mel(clip), (data.benchmark.num_frames(clip), 1, EXAMPLE_FRAMES, MEL_BANDS)
    if path.is_file():
        array = read_npy(path, shape)
    elif (path := data.pickled_log_mel(clip)).is_file():
        from utils.pickled_log_mel import read_pickled_tensor  # imports torch, which preprocessing otherwise avoids

        array = read_pickled_tensor(path)
    else:
        raise InputError(f"{data.log_mel(clip)}: no such file; run {data.preprocess_command}")
    if array.shape != shape:
        raise InputError(f"{path}: has shape {array.shape}, not {shape}; preprocess the clip again")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: has NaN or infinite values; preprocess the clip again")
    return array.astype(np.float32)
