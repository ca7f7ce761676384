"""What is unusual about a video, in sentences for the user: notes of the demo, and of the report of preprocessing."""

from collections.abc import Sequence

import av
import numpy as np

from utils.fidelity import Fidelity
from utils.tone_map import HDR_TRANSFERS
from utils.video_frame import WIDE_GAMUTS, is_tone_mapped

CANCELLATION_RATIO = 0.01  # RMS of the channels' average relative to the channels', below which they cancel


def discontinuity_note(times: Sequence[float], start: float) -> str:
    """A note on time stamps that start again or jump, at these seconds of the file's clock; `start` is its first."""
    listed = ", ".join(f"{max(time - start, 0):.1f} s" for time in times[:5])
    return f"The file consists of concatenated parts: its time stamps start again or jump at {listed}."


def color_notes(frame: av.VideoFrame, fidelity: Fidelity = "corrected") -> list[str]:
    """What happens to colors that an ordinary screen does not have."""
    transfer = HDR_TRANSFERS.get(frame.color_trc)
    if transfer and fidelity == "published":
        return [f"The video is HDR ({transfer}), which the original does not tone-map: its colors are pale."]
    if transfer and is_tone_mapped(frame):
        return [f"The video is HDR ({transfer}): its colors are tone-mapped to those of an ordinary screen."]
    if transfer:
        return [f"The video is HDR ({transfer}) and not coded in YCbCr: it is not tone-mapped."]
    if gamut := WIDE_GAMUTS.get(frame.color_primaries):
        return [f"The colors are those of {gamut}, which are taken for BT.709's: they appear a little paler."]
    return []


def channels_cancel(samples: np.ndarray) -> bool:
    """Whether the average of the channels of float samples (n, channels) is silent although they are not."""
    return bool(np.square(samples.mean(axis=1)).mean() < CANCELLATION_RATIO**2 * np.square(samples).mean())


def clip_notes(
    frames: Sequence[av.VideoFrame],
    samples: np.ndarray,
    discontinuities: Sequence[float],
    start: float,
    fidelity: Fidelity,
) -> list[str]:
    """The notes on a clip.

    Args:
        frames: those of its seconds.
        samples: int16 (n, channels).
        discontinuities: of its time stamps, in seconds.
        start: of the first frame, in seconds.
        fidelity: by which it is read.
    """
    notes = [discontinuity_note(discontinuities, start)] if discontinuities else []
    notes += color_notes(frames[0], fidelity)
    if len({(frame.width, frame.height) for frame in frames}) > 1:
        notes.append("The size of the frames changes.")
    if len(samples) and channels_cancel(samples.astype(np.float32)):
        notes.append(
            "The two channels cancel each other: their average, of which the features are computed, is silent."
        )
    return notes
