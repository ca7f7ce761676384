"""Audio-visual encoders. A new one is a file here and a line in ENCODERS, with its name in `options.EncoderName`.

clap.py and pe_a_frame.py, which only name sounds, are no audio-visual encoders.
"""

from typing import Any

from utils.cli import InputError
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.encoders.base import AudioVisualEncoder, DenseEncoder
from zero_shot.encoders.pe_av import PEAVEncoder
from zero_shot.options import Options

__all__ = ["ENCODERS", "AudioVisualEncoder", "DenseEncoder", "check_maps", "require_maps"]

# `from_options` of each builds it from the options, the device and the cache folder (None: no cache), and raises
# InputError for a checkpoint that is missing or does not fit.
ENCODERS: dict[str, Any] = {"audioclip": AudioCLIPEncoder, "pe_av": PEAVEncoder}


def check_maps(encoder: object, options: Options) -> None:
    """Raise InputError if an encoder, or its class, computes no similarity maps, which the method needs."""
    if not hasattr(encoder, "similarity_maps"):
        method = "no_prompt with retrieval.score map" if options.method == "no_prompt" else options.method
        able = ", ".join(name for name, each in ENCODERS.items() if hasattr(each, "similarity_maps"))
        raise InputError(
            f"method {method} needs similarity maps, which encoder {options.encoder} does not compute; "
            f"use --encoder {able}, or --method no_prompt, which compares crops"
        )


def require_maps(encoder: AudioVisualEncoder, options: Options) -> DenseEncoder:
    """The encoder, if it computes similarity maps. Raises InputError if it does not."""
    check_maps(encoder, options)
    assert isinstance(encoder, DenseEncoder)
    return encoder
