"""The networks of a zero-shot method, each built from the options on request."""

import torch

from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.encoders import ENCODERS, AudioVisualEncoder, check_maps
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.options import Options, find_folder
from zero_shot.segmenters import SEGMENTERS, Segmenter


class Components:
    """Builds encoder, segmenter, classifier and detector by the options.

    Every method raises InputError for a checkpoint that is missing or does not fit.
    """

    def __init__(self, options: Options, device: torch.device | str = "cpu"):
        self.options, self.device = options, torch.device(device)
        self.cache = options.run.cache if options.run.use_cache else None

    def encoder(self) -> AudioVisualEncoder:
        """The network that embeds audio and frames in one space.

        Raises:
            InputError: before anything is loaded, if the method needs similarity maps and the encoder has none.
        """
        encoder = ENCODERS[self.options.encoder]
        if self.options.needs_similarity_maps:
            check_maps(encoder, self.options)
        return encoder.from_options(self.options, self.device, self.cache)

    def segmenter(self) -> Segmenter:
        """The network that turns prompts into masks."""
        return SEGMENTERS[self.options.segmenter](self.options, self.device, self.cache)

    def classifier(self) -> ClapClassifier:
        """The network that assigns labels to audio."""
        options = self.options.grounding
        return ClapClassifier(find_folder(options.clap), options.labels, self.device)

    def detector(self) -> GroundingDinoDetector:
        """The network that detects boxes for labels."""
        return GroundingDinoDetector(find_folder(self.options.grounding.detector), self.device)
