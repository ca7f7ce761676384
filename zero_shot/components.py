"""The networks that a zero-shot method asks for, each built from the options when it is asked for."""

import torch

from models.registry import create_model
from utils.fidelity import Fidelity
from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.encoders import AudioVisualEncoder
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.options import Options
from zero_shot.segmenters import Segmenter
from zero_shot.segmenters.sam import SamSegmenter


class Components:
    """Builds encoder, segmenter, classifier and detector by the options.

    Every method raises InputError for a checkpoint that is missing or does not fit.
    """

    def __init__(self, options: Options, device: torch.device | str = "cpu"):
        self.options, self.device = options, device
        self.cache = options.run.cache if options.run.use_cache else None

    def encoder(self) -> AudioVisualEncoder:
        """The network that embeds audio and frames in one space."""
        options, run = self.options.audioclip, self.options.run
        amplitude: dict[str, Fidelity] = {
            "by_fidelity": self.options.fidelity,
            "unit": "published",
            "int16": "corrected",
        }
        model = create_model("audioclip", options.weights, text=False, fidelity=amplitude[options.amplitude])
        return AudioCLIPEncoder(
            model,
            options,
            device=self.device,
            cache=self.cache,
            precision=run.precision,
            channels_last=run.channels_last,
        )

    def segmenter(self) -> Segmenter:
        """The network that turns prompts into masks."""
        options, run = self.options.sam, self.options.run
        sam = create_model(f"sam_{options.model}", options.checkpoint).to(self.device)
        return SamSegmenter(
            sam, cache=self.cache, precision=run.precision, memory_mib=run.memory_mib, compiled=run.compile
        )

    def classifier(self) -> ClapClassifier:
        """The network that names a sound."""
        return ClapClassifier(self.options.grounding.clap, self.options.grounding.labels, self.device)

    def detector(self) -> GroundingDinoDetector:
        """The network that finds boxes for names."""
        return GroundingDinoDetector(self.options.grounding.detector, self.device)
