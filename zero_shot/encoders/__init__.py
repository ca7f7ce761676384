"""Audio-visual encoders. A new one is a file here and a line in ENCODERS, with its name in `options.EncoderName`.

clap.py, which only classifies audio, is used by box_prompt and is not an audio-visual encoder.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from zero_shot.encoders.audioclip import build_audioclip_encoder
from zero_shot.encoders.base import AudioVisualEncoder
from zero_shot.options import Options

__all__ = ["ENCODERS", "AudioVisualEncoder"]

# Each builds an encoder from the options, the device and the cache folder (None: no cache). Raises InputError for a
# checkpoint that is missing or does not fit.
ENCODERS: dict[str, Callable[[Options, torch.device, Path | None], AudioVisualEncoder]] = {
    "audioclip": build_audioclip_encoder,
}
