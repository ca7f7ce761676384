"""Sam4AVS's supervised segmentor: AudioCLIP's towers, a fusion of sight and sound, and a semantic FPN.

The image tower's attention pool gives every location an embedding in the space of the sounds. Sound enters at the
coarsest level only, by one of these fusions (x4: the tower's last map; e: those embeddings; a: the sound's embedding,
the same everywhere; ⊙: product channel by channel; ê, â: L2-normalised):

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
from models.tpavi_segmentor import Segmentation
from models.vggish import VGGish
from utils.fidelity import Fidelity

Fusion = Literal["concate", "normed_concate", "naive_concate", "score_fusion", "skip", "noprior", "none"]
WITHOUT_DENSE_EMBEDDINGS = ("noprior", "none")  # fusions that do not read e


class AudioCLIPSegmentor(nn.Module):
    """Frames and sound -> mask logits.

    fusion: see above. upsample: of the pyramid's neck. channels: width of the neck, twice that of the head.
    audioclip: whose towers to use (they become part of this model), or the sizes that `AudioCLIP` takes; without
    either, the published sizes with random weights. audio: what hears, "audioclip" (a waveform) or "vggish"
    (log-mel examples, through `vggish` and a projection to AudioCLIP's space). fidelity: the amplitude of the
    waveform, see AudioCLIP; None leaves a given AudioCLIP's, and is "corrected" else.
    Raises ValueError for an unknown choice.
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
        # What a fusion does not read is not built, or left without gradients (several processes insist on that).
        self.visual.attnpool.requires_grad_(fusion not in WITHOUT_DENSE_EMBEDDINGS)
        self.audio: VGGish | ESResNeXtFBSP | None = None
        self.audio_projector: nn.Linear | None = None
        if fusion != "none" and audio == "vggish":
            self.audio = vggish or VGGish()
            self.audio_projector = nn.Linear(self.audio.output_size, towers.embed_dim)
        elif fusion != "none":
            self.audio = towers.audio
            towers.audio.fbsp.bias.requires_grad_(False)  # empty
        width = self.visual.layer4[-1].bn3.num_features
        embedding, extra = towers.embed_dim, 2 * towers.embed_dim
        last = {"naive_concate": width + extra, "score_fusion": width + 1, "skip": embedding, "none": width}
        widths = [width // 8, width // 4, width // 2, last.get(fusion, width + embedding)]
        self.neck = FeaturePyramid(widths, channels, upsample)
        self.head = SemanticHead(channels, channels // 2)

    def forward(self, frames: Tensor, audio: Tensor | None) -> Tensor:
        """frames (B, 5, 3, H, W) normalised, H and W multiples of 32; audio as `listen` takes it ->
        logits (B, 5, H, W)."""
        return self.segment(frames, self.encode_audio(audio)).logits

    def encode_audio(self, audio: Tensor | None) -> Tensor | None:
        """Features (B, 5, A) of sounds, before their projection to the embedding space; None for fusion "none".

        audio: waveforms (B, 5, samples) in [-1, 1] at 44.1 kHz, or, for VGGish, log-mel examples (B, 5, 1, 96, 64).
        """
        if self.audio is None:
            return None
        if audio is None:
            raise ValueError(f"fusion '{self.fusion}' listens: give it sounds")
        flat = audio.flatten(0, 1)
        if isinstance(self.audio, VGGish):
            heard = self.audio(flat)
        else:
            heard = self.audio.pool(scale_waveform(flat, self.fidelity))
        return heard.unflatten(0, audio.shape[:2])

    def segment(self, frames: Tensor, heard: Tensor | None, labelled: int | None = None) -> Segmentation:
        """As `forward`, from what `listen` returns; `maps` are the neck's, and no stage has an audio feature.

        labelled: give only the first so many frames' logits and maps. Batch statistics are still those of all.
        """
        if frames.shape[-1] % 32 or frames.shape[-2] % 32:
            raise ValueError(f"frames are {frames.shape[-1]}×{frames.shape[-2]}; both sides must be multiples of 32")
        maps = self.visual.pyramid(frames.flatten(0, 1))
        if labelled is not None:
            maps = [x.unflatten(0, frames.shape[:2])[:, :labelled].flatten(0, 1) for x in maps]
            heard = None if heard is None else heard[:, :labelled]
        batch = (len(frames), -1)
        maps[3] = self._fuse(maps[3], None if heard is None else self.projection(heard.flatten(0, 1)))
        maps = self.neck(maps)
        logits = self.head(maps).unflatten(0, batch)
        return Segmentation(logits, [x.unflatten(0, batch) for x in maps], [None] * 4)

    @property
    def projection(self) -> nn.Linear:
        """The layer from what `listen` returns to embeddings: the audio tower's own last one, or VGGish's projector."""
        if isinstance(self.audio, ESResNeXtFBSP):
            return self.audio.fc
        if self.audio_projector is None:
            raise ValueError("fusion 'none' does not listen")
        return self.audio_projector

    def _fuse(self, x4: Tensor, a: Tensor | None) -> Tensor:
        """x4 (N, C, h, w) and embeddings (N, E) of the sounds -> the coarsest map that the neck gets."""
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
        """Load a state dict in Sam4AVS's names, strictly; returns the model.

        It holds each tower twice, as `aclp.visual.*` and `visual_encoder.*`, `aclp.audio.*` and `audio_encoder.*`;
        the second names are in force, the first serve where they are missing. The text tower, and towers that this
        fusion does not use, are left out. Such weights were trained on sounds of the published amplitude, so
        `fidelity` is "published" from here on. Raises RuntimeError naming missing, unexpected or misshapen keys.
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
