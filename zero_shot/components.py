"""The networks of a zero-shot method, each built from the options on request."""

from pathlib import Path

import torch

from models.registry import find_weights
from utils.cli import InputError
from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.encoders import ENCODERS, AudioVisualEncoder
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.options import Options
from zero_shot.segmenters import SEGMENTERS, Segmenter


class Components:
    """Builds encoder, segmenter, classifier and detector by the options.

    Every method raises InputError for a checkpoint that is missing or does not fit.
    """

    def __init__(self, options: Options, device: torch.device | str = "cpu"):
        self.options, self.device = options, torch.device(device)
        self.cache = options.run.cache if options.run.use_cache else None

    def encoder(self) -> AudioVisualEncoder:
        """The network that embeds audio and frames in one space."""
        return ENCODERS[self.options.encoder](self.options, self.device, self.cache)

    def segmenter(self) -> Segmenter:
        """The network that turns prompts into masks."""
        return SEGMENTERS[self.options.segmenter](self.options, self.device, self.cache)

    def classifier(self) -> ClapClassifier:
        """The network that assigns labels to audio."""
        options = self.options.grounding
        return ClapClassifier(_folder(options.clap), options.labels, self.device)

    def detector(self) -> GroundingDinoDetector:
        """The network that detects boxes for labels."""
        return GroundingDinoDetector(_folder(self.options.grounding.detector), self.device)


def _folder(weights: str) -> Path:
    """The folder that a name or a path stands for."""
    folder = find_weights(weights)
    if folder is None:
        raise InputError(
            "random: grounding.clap and grounding.detector name folders; python -m "
            "synthetic.random_grounding makes random ones"
        )
    return folder
