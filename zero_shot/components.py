"""The networks of a zero-shot method, each built from the options on request."""

import torch

from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.encoders import ENCODERS, AudioVisualEncoder
from zero_shot.encoders.base import SoundClassifier
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.encoders.pe_a_frame import PEAFrameClassifier
from zero_shot.finders import BoxFinder, ObjectFinder, TextFinder
from zero_shot.model_options import find_folder
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
        return ENCODERS[self.options.encoder].from_options(self.options, self.device, self.cache)

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

    def text_detector(self) -> Sam3Detector:
        """The network that segments what a text names."""
        return Sam3Detector(find_folder(self.options.concept.sam3), self.device)

    def sound_classifier(self) -> SoundClassifier:
        """The network that says how sure each label of concept_prompt is."""
        if self.options.concept.classifier == "clap":
            return self.classifier()
        folder = find_folder(self.options.concept.pe_a_frame)
        return PEAFrameClassifier(folder, self.options.grounding.labels, self.device)

    def object_finder(self) -> ObjectFinder:
        """The networks that find what labels of concept_prompt name."""
        concept, threshold = self.options.concept, self.options.grounding.threshold
        if concept.finder == "sam3":
            return TextFinder(self.text_detector(), threshold, concept.min_presence)
        return BoxFinder(self.detector(), self.segmenter(), threshold)
