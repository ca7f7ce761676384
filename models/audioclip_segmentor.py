"""SAM4AVS's supervised segmentor: AudioCLIP's towers, an audio-visual fusion, and a semantic FPN.

The attention pool of the image tower gives every location an embedding in the space of the audio embeddings. Audio is
fused at the coarsest level only (x4: last map of the image tower; e: embeddings of the locations; a: audio embedding,
the same at every location; ⊙: elementwise product; ê, â: L2-normalized):

    concate         [x4, e ⊙ a]         naive_concate   [x4, e, a]      skip      e ⊙ a
    normed_concate  [x4, ê ⊙ â]         score_fusion    [x4, Σ ê ⊙ â]   noprior   [x4, a]      none  x4

Source: SAM4AVS (BMVC 2023), `model/ACLP_AVSModel_real_Semantic_FPN*.py`.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.audioclip import AudioCLIP, scale_waveform
from models.checkpoints import load_strict
from models.esresnext import ESResNeXtFBSP
from models.fpn import FeaturePyramid, SemanticHead
from models.tpavi import scatter
from models.tpavi_segmentor import Segmentation
from models.vggish import VGGish
from utils.fidelity import Fidelity

Fusion = Literal["concate", "normed_concate", "naive_concate", "score_fusion", "skip", "noprior", "none"]
WITHOUT_DENSE_EMBEDDINGS = ("noprior", "none")  # fusions that do not use e


class AudioCLIPSegmentor(nn.Module):
    """From frames and audio to mask logits.

    Args:
        fusion: one of the table above.
        upsample: interpolation in the neck.
        audioclip: the network whose towers become part of this model, or constructor arguments of one; default: the
            published sizes with random weights.
        audio: the audio tower: "audioclip" (from waveforms), or "vggish" (from log-mel spectrograms, followed by a
            projection to AudioCLIP's embedding space).
        vggish: the VGGish to use; default: the public sizes with random weights.
        channels: width of the neck, twice that of the head.
        fidelity: amplitude of the waveform as in AudioCLIP; default: that of `audioclip`, or "corrected".
        classes: 1 for masks of what sounds (S4, MS3), 71 for AVSS.

    Raises:
        ValueError: for an unknown fusion, upsampling or audio tower.
    """

    def __init__(
        self,
        fusion: Fusion = "concate",
        upsample: Literal["bilinear", "nearest"] = "bilinear",
        audioclip: AudioCLIP | Mapping[str, Any] | None = None,
        audio: Literal["audioclip", "vggish"] = "audioclip",
        vggish: VGGish | None = None,
        channels: int = 256,
        fidelity: Fidelity | None = None,
        classes: int = 1,
    ):
        super().__init__()
        if fusion not in get_args(Fusion):
            raise ValueError(f"unknown fusion '{fusion}'; choose from {', '.join(get_args(Fusion))}")
        if audio not in ("audioclip", "vggish"):
            raise ValueError(f"audio must be 'audioclip' or 'vggish', got {audio!r}")
        towers = audioclip if isinstance(audioclip, AudioCLIP) else AudioCLIP(**{"text": False, **(audioclip or {})})
        self.fusion = fusion
        self.fidelity: Fidelity = fidelity or towers.fidelity
        self.visual = towers.visual
        # What a fusion does not use is not built or gets no gradient, as distributed training requires.
        self.visual.attnpool.requires_grad_(fusion not in WITHOUT_DENSE_EMBEDDINGS)
        self.audio: VGGish | ESResNeXtFBSP | None = None
        self.audio_projector: nn.Linear | None = None
        if fusion != "none" and audio == "vggish":
            self.audio = vggish or VGGish()
            self.audio_projector = nn.Linear(self.audio.output_size, towers.embed_dim)
        elif fusion != "none":
            self.audio = towers.audio
            towers.audio.fbsp.bias.requires_grad_(False)  # has no elements
        width = self.visual.layer4[-1].bn3.num_features
        embedding, extra = towers.embed_dim, 2 * towers.embed_dim
        last = {"naive_concate": width + extra, "score_fusion": width + 1, "skip": embedding, "none": width}
        widths = [width // 8, width // 4, width // 2, last.get(fusion, width + embedding)]
        self.neck = FeaturePyramid(widths, channels, upsample)
        self.head = SemanticHead(channels, channels // 2, classes)

    def forward(self, frames: Tensor, audio: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Segment clips.

        Args:
            frames: (B, T, 3, H, W), normalized; H and W multiples of 32.
            audio: as in `encode_audio`; None for fusion "none".
            valid: (B, T), 0 for frames that only pad a clip; None if all are real.

        Returns:
            Logits (B, T, H, W), or (B, T, classes, H, W) of several classes; 0 for padding.
        """
        return self.segment(frames, self.encode_audio(audio), valid=valid).logits

    def encode_audio(self, audio: Tensor | None) -> Tensor | None:
        """Audio features before their projection to the embedding space.

        Args:
            audio: waveforms (B, T, samples) in [-1, 1] at 44.1 kHz, or log-mel (B, T, 1, 96, 64) for VGGish.

        Returns:
            (B, T, A); None for fusion "none".

        Raises:
            ValueError: if audio is missing.
        """
        if self.audio is None:
            return None
        if audio is None:
            raise ValueError(f"fusion '{self.fusion}' needs audio")
        flat = audio.flatten(0, 1)
        if isinstance(self.audio, VGGish):
            features = self.audio(flat)
        else:
            features = self.audio.pool(scale_waveform(flat, self.fidelity))
        return features.unflatten(0, audio.shape[:2])

    def segment(
        self,
        frames: Tensor,
        audio_features: Tensor | None,
        num_labeled: int | None = None,
        *,
        valid: Tensor | None = None,
        decoded: Tensor | None = None,
    ) -> Segmentation:
        """Like `forward`, from audio features.

        Args:
            frames: as in `forward`.
            audio_features: (B, T, A), the output of `encode_audio`.
            num_labeled: decode only the first frames of each clip. Batch statistics are still those of all frames.
            valid: as in `forward`. Padding does not enter batch statistics.
            decoded: (B, T), nonzero for the frames to decode: in training on AVSS, those with labels. Default: `valid`.

        Returns:
            The logits and the maps of the neck; no stage has an aligned audio feature.
        """
        if frames.shape[-1] % 32 or frames.shape[-2] % 32:
            raise ValueError(f"frames are {frames.shape[-1]}×{frames.shape[-2]}; both sides must be multiples of 32")
        if valid is not None:
            kept = valid if decoded is None else decoded
            return self._segment_padded(frames, audio_features, valid.bool(), kept.bool())
        maps = self.visual.pyramid(frames.flatten(0, 1))
        if num_labeled is not None:
            maps = [x.unflatten(0, frames.shape[:2])[:, :num_labeled].flatten(0, 1) for x in maps]
            audio_features = None if audio_features is None else audio_features[:, :num_labeled]
        maps, logits = self._decode(maps, None if audio_features is None else audio_features.flatten(0, 1))
        batch = (len(frames), -1)
        return Segmentation(logits.unflatten(0, batch), [x.unflatten(0, batch) for x in maps], [None] * 4)

    def _segment_padded(self, frames: Tensor, features: Tensor | None, valid: Tensor, decoded: Tensor) -> Segmentation:
        """`segment` of clips of which only the frames in `valid` (B, T) bool are real, and `decoded` are decoded."""
        maps = [x[decoded[valid]] for x in self.visual.pyramid(frames[valid])]
        maps, logits = self._decode(maps, None if features is None else features[decoded])
        return Segmentation(scatter(logits, decoded), [scatter(x, decoded) for x in maps], [None] * 4)

    def _decode(self, maps: list[Tensor], features: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """The maps of the neck and the logits of frames (N, ...), from maps of the image tower and audio features."""
        maps[3] = self._fuse(maps[3], None if features is None else self.projection(features))
        fused = self.neck(maps)
        return fused, self.head(fused)

    @property
    def projection(self) -> nn.Linear:
        """The layer from audio features to embeddings: the last one of the audio tower, or VGGish's projector."""
        if isinstance(self.audio, ESResNeXtFBSP):
            return self.audio.fc
        if self.audio_projector is None:
            raise ValueError("fusion 'none' uses no audio")
        return self.audio_projector

    def _fuse(self, x4: Tensor, a: Tensor | None) -> Tensor:
        """The coarsest input of the neck, from x4 (N, C, h, w) and audio embeddings (N, E)."""
        if a is None:
            return x4
        a = a[:, :, None, None]
        if self.fusion == "noprior":
            return torch.cat([x4, a.expand(-1, -1, *x4.shape[2:])], 1)
        e, _ = self.visual.attnpool.dense(x4)
        if self.fusion == "naive_concate":
            return torch.cat([x4, e, a.expand_as(e)], 1)
        if self.fusion in ("normed_concate", "score_fusion"):
            e, a = F.normalize(e, dim=1), F.normalize(a, dim=1)
        joint = e * a
        if self.fusion == "skip":
            return joint
        return torch.cat([x4, joint.sum(1, keepdim=True) if self.fusion == "score_fusion" else joint], 1)

    def load_reference(self, state: Mapping[str, Tensor]) -> "AudioCLIPSegmentor":
        """Load a state dict of Sam4AVS's code strictly.

        It holds each tower twice: as `aclp.visual.*` and `visual_encoder.*`, `aclp.audio.*` and `audio_encoder.*`.
        The second names take precedence; the first are used where those are missing. The text tower and towers that
        this fusion does not use are left out. `fidelity` becomes "published", because such weights were trained on
        waveforms of the published amplitude.

        Returns:
            The model itself.

        Raises:
            RuntimeError: naming missing, unexpected and misshapen keys.
        """
        renames = {"aclp.visual.": "visual.", "visual_encoder.": "visual."}
        unused = ["aclp."]
        if isinstance(self.audio, VGGish):
            renames["audio_encoder.audio_backbone."] = "audio."
        elif self.audio is not None:
            renames |= {"aclp.audio.": "audio.", "audio_encoder.": "audio."}
        else:
            unused += ["audio_encoder.", "audio_projector."]
        ours = {key: value for key, value in state.items() if not key.startswith((*renames, *unused))}
        for theirs, name in renames.items():
            ours |= {name + key.removeprefix(theirs): v for key, v in state.items() if key.startswith(theirs)}
        load_strict(self, ours)
        self.fidelity = "published"
        return self
