"""PE-AV as a zero-shot encoder, by the `transformers` package (an optional extra).

It embeds sound and video in one space. A crop of a proposal is embedded as a video of one frame; there are no
embeddings of single places, so it gives no similarity maps. Embeddings are computed in float32.
Source: Meta's Perception Encoder Audio-Visual, as in transformers, `models/pe_audio_video`.
"""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.cache import weights_hash
from utils.device import to_device
from utils.fidelity import Fidelity
from utils.memo import NO_MEMO
from zero_shot.encoders.cached import CHUNK, EmbeddingCache
from zero_shot.model_options import find_folder
from zero_shot.options import Options
from zero_shot.proposal_scoring import crop_proposals
from zero_shot.transformers_folder import load_folder

CACHE_VERSION = 1  # increase when a change here alters the numbers in the cache


class PEAVEncoder:
    """PE-AV with its cache; implements AudioVisualEncoder.

    The folder's own processors resize and normalize crops and pad audio; its sample rate (48 kHz) is the encoder's.

    Args:
        folder: as transformers' save_pretrained writes it.
        device: where it runs.
        cache: folder of cached embeddings; None caches nothing.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit.
    """

    int16_round_trip = False
    memo = NO_MEMO

    def __init__(self, folder: Path | str, *, device: torch.device | str = "cpu", cache: Path | None = None):
        parts: dict[str, dict[str, str]] = {"PeAudioVideoProcessor": {}}
        with redirect_stdout(StringIO()):  # transformers 5.23 prints a complaint about its own documentation
            model, (processor,) = load_folder(Path(folder), "pe_audio_video", _network_class, parts)
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.feature_extractor, self.video_processor = processor.feature_extractor, processor.video_processor
        self.sample_rate = int(self.feature_extractor.sampling_rate)
        parameters = {
            "version": CACHE_VERSION,
            "weights": weights_hash(model),
            "audio": self.feature_extractor.to_dict(),
            "images": self.video_processor.to_dict(),
            "device": self.device.type,  # rounding differs
        }
        self.cache = EmbeddingCache(cache, parameters if cache else {})

    @classmethod
    def from_options(cls, options: Options, device: torch.device, cache: Path | None) -> "PEAVEncoder":
        """Build PE-AV by the options.

        Raises:
            InputError: for a folder that is missing or does not fit.
        """
        return cls(find_folder(options.pe_av.weights), device=device, cache=cache)

    def with_options(self, options: Options) -> "PEAVEncoder":
        """Implements AudioVisualEncoder.with_options; it has no options but its weights."""
        return self

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Implements AudioVisualEncoder.encode_audio."""

        def encode(indices: list[int]) -> Tensor:
            waveforms = [audio[index].numpy() for index in indices]
            inputs = self.feature_extractor(waveforms, sampling_rate=self.sample_rate, return_tensors="pt")
            values = to_device(inputs["input_values"].float(), self.device)
            return self._run(lambda: self.model.get_audio_embeds(values))

        def features() -> Tensor:
            return F.normalize(self.cache.of_items("audio", {}, list(audio.numpy()), encode), dim=1)

        return self.memo("audio", None, [audio], features)

    def encode_crops(
        self, frame: np.ndarray, proposals: Sequence[dict[str, Any]], fidelity: Fidelity
    ) -> tuple[Tensor, list[int]]:
        """Implements AudioVisualEncoder.encode_crops."""

        def embeddings() -> tuple[Tensor, list[int]]:
            crops = crop_proposals(frame, proposals, fidelity)
            return self.embed_images(list(crops.values())), list(crops)

        return self.memo("crops", fidelity, [frame, proposals], embeddings)

    def embed_images(self, images: Sequence[np.ndarray]) -> Tensor:
        """Normalized embeddings (K, D) of images (h, w, 3) uint8 RGB of any sizes, each as a video of one frame."""

        def encode() -> Tensor:
            parts = [self._encode_images(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
            return torch.cat(parts) if parts else torch.zeros(0, self.model.config.text_config.hidden_size)

        return self.cache.of_crops({}, images, encode)

    def _encode_images(self, images: Sequence[np.ndarray]) -> Tensor:
        # One at a time: they differ in size before they are resized.
        pixels = [
            self.video_processor(
                torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None],
                do_sample_frames=False,
                input_data_format="channels_first",
                return_tensors="pt",
            )["pixel_values_videos"]
            for image in images
        ]
        videos = to_device(torch.cat(pixels), self.device)
        # get_video_embeds of transformers 5.23 raises an error, because its parts are not methods.
        parts = self.model.video_model
        return self._run(lambda: parts.video_head(parts.video_encoder(videos).pooler_output))

    @torch.inference_mode()
    def _run(self, compute: Callable[[], Tensor]) -> Tensor:
        return compute().float().cpu()


def _network_class(transformers: Any) -> Any:
    """PeAudioVideoModel, corrected: with timm 1.0.31 its list of tied weights matches a buffer, and loading fails.

    The list excludes the buffer `rope.pos_embed`, but not `rope.bands`, which this version of timm has too.
    """
    original = transformers.PeAudioVideoModel
    tied = {
        name.replace(r"\.rope\.pos_embed", r"\.rope\.\w+"): source.replace(r"\.rope\.pos_embed", r"\.rope\.\w+")
        for name, source in original._tied_weights_keys.items()
    }
    return type(original.__name__, (original,), {"_tied_weights_keys": tied})
