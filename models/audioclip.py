"""AudioCLIP: a joint embedding space of images, texts and audio.

CLIP's ResNet-50 and text transformer (open_clip's modules) beside the ESResNeXt-FBSP audio tower. The
state-dict names are those of the published ``AudioCLIP-Full-Training.pt`` (861 entries).
Source: Guzhov et al., "AudioCLIP: Extending CLIP to Image, Text and Audio" (ICASSP 2022); the dense image
output follows SAM4AVS (BMVC 2023) and, with ``surgery``, Li et al., "CLIP Surgery" (2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from models.clip_resnet import DenseResNet
from models.esresnext import ESResNeXtFBSP
from utils.fidelity import Fidelity, validate_fidelity

SAMPLE_RATE = 44_100  # Hz, what the audio tower was trained on
VOCABULARY = 49_408  # CLIP's byte-pair vocabulary
PEAK_LIMIT = 4.0  # resampling may overshoot 1 a little; anything above this is not a waveform in [-1, 1]


class Logits(NamedTuple):
    """Scaled cosine similarities (rows, columns) of each pair of modalities; None where one is missing."""

    audio_image: Tensor | None
    audio_text: Tensor | None
    image_text: Tensor | None


class AudioCLIP(nn.Module):
    """Encoders of images, texts and audio with a joint embedding space.

    The defaults are the published network (134 111 910 parameters); small weights use the same class with other
    sizes. For bfloat16, run it under ``torch.autocast``: spectrum, decibels and logits then stay in float32.

    Args:
        embed_dim: length of the embeddings.
        image_size: side in pixels that the position embeddings are trained for, a multiple of 32.
        vision_layers: bottleneck blocks of the image tower's four stages.
        vision_width: channels of its stem, even; the attention pool has ``vision_width / 2`` heads.
        text: whether to have a text tower.
        context_length, text_width, text_heads, text_layers: sizes of the text tower.
        audio_n_fft, audio_hop, audio_win, audio_layers, audio_width, audio_groups, audio_width_per_group:
            sizes of the audio tower, see :class:`~models.esresnext.ESResNeXtFBSP`.
        fidelity: amplitude of the audio tower's input. ``"corrected"`` scales [-1, 1] to the range of 16-bit
            integers that its weights were trained on; ``"published"`` passes [-1, 1] as the segmentation study did,
            which leaves a resolution of some 8 bits.
    """

    def __init__(
        self,
        embed_dim: int = 1024,
        image_size: int = 224,
        vision_layers: Sequence[int] = (3, 4, 6, 3),
        vision_width: int = 64,
        text: bool = True,
        context_length: int = 77,
        text_width: int = 512,
        text_heads: int = 8,
        text_layers: int = 12,
        audio_n_fft: int = 2048,
        audio_hop: int = 561,
        audio_win: int = 1654,
        audio_layers: Sequence[int] = (3, 4, 6, 3),
        audio_width: int = 64,
        audio_groups: int = 32,
        audio_width_per_group: int = 4,
        fidelity: Fidelity = "corrected",
    ) -> None:
        super().__init__()
        self.fidelity = validate_fidelity(fidelity)
        self.embed_dim = embed_dim
        self.visual = DenseResNet(vision_layers, embed_dim, vision_width // 2, image_size, vision_width)
        self.audio = ESResNeXtFBSP(
            embed_dim,
            audio_n_fft,
            audio_hop,
            audio_win,
            audio_layers,
            audio_width,
            audio_groups,
            audio_width_per_group,
        )
        self.has_text = text
        if text:
            # The published names have the text tower's parts at the top level.
            tower = TextTransformer(
                context_length,
                VOCABULARY,
                text_width,
                text_heads,
                text_layers,
                output_dim=embed_dim,
                act_layer=QuickGELU,
            )
            self.token_embedding = tower.token_embedding
            self.positional_embedding = tower.positional_embedding
            self.transformer = tower.transformer
            self.ln_final = tower.ln_final
            self.text_projection = tower.text_projection
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.logit_scale_ai = nn.Parameter(torch.tensor(math.log(100)))
        self.logit_scale_at = nn.Parameter(torch.tensor(math.log(100)))

    def encode_audio(self, waveform: Tensor) -> Tensor:
        """Embeddings (N, embed_dim), not normalized, of mono waveforms.

        Args:
            waveform: (N, samples) or (N, 1, samples), floats in [-1, 1] at 44.1 kHz.

        Raises:
            ValueError: another shape (channels are not mixed down), integers, NaN or infinite
                samples, or samples far outside [-1, 1].
        """
        return self.audio(scale_waveform(waveform, self.fidelity))

    def encode_image(self, images: Tensor) -> Tensor:
        """Embeddings (N, embed_dim), not normalized, of ``images``, as in :meth:`image_pyramid`."""
        return self.visual(self._validate_images(images))

    def image_pyramid(self, images: Tensor, surgery: bool = False) -> tuple[list[Tensor], Tensor, Tensor]:
        """Feature maps and embeddings of every location of images.

        Args:
            images: (N, 3, H, W), floats normalized by CLIP's statistics, at least 32 pixels a side.
            surgery: pool by value-value attention (CLIP Surgery), which keeps embeddings local. ``pooled`` is then its
                mean token, not CLIP's image embedding.

        Returns:
            ([x1, x2, x3, x4], dense, pooled): the stages' maps at strides 4, 8, 16, 32 (256, 512, 1024 and
            2048 channels at the published sizes); dense embeddings (N, embed_dim, H/32, W/32); pooled
            embeddings (N, embed_dim). Embeddings are not normalized.
        """
        maps = self.visual.pyramid(self._validate_images(images))
        dense, pooled = self.visual.attnpool.dense(maps[-1], surgery=surgery)
        return maps, dense, pooled

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (N, embed_dim), not normalized, of N texts.

        Raises:
            ValueError: a single string in place of a list, no text, or a text longer than the context.
            RuntimeError: the model was built without a text tower.
        """
        if not self.has_text:
            raise RuntimeError("this AudioCLIP has no text tower (text=False)")
        tokens = tokenize(texts, len(self.positional_embedding)).to(self.positional_embedding.device)
        # Attention is causal, so tokens after the last end mark of the batch have no effect.
        end = tokens.argmax(dim=1)
        tokens = tokens[:, : int(end.max()) + 1]
        length = tokens.shape[1]

        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        mask = torch.full((length, length), -math.inf, dtype=x.dtype, device=x.device).triu(1)
        x = self.ln_final(self.transformer(x, attn_mask=mask))
        return x[torch.arange(len(x), device=x.device), end] @ self.text_projection

    def forward(
        self, waveform: Tensor | None = None, images: Tensor | None = None, texts: Sequence[str] | None = None
    ) -> Logits:
        """Logits between the given modalities, each an input of its ``encode_`` method."""
        return self.logits(
            None if waveform is None else self.encode_audio(waveform),
            None if images is None else self.encode_image(images),
            None if texts is None else self.encode_text(texts),
        )

    def logits(self, audio: Tensor | None = None, image: Tensor | None = None, text: Tensor | None = None) -> Logits:
        """Scaled cosine similarities between raw embeddings (N, embed_dim) of two or three modalities."""
        return Logits(
            _similarity(audio, image, self.logit_scale_ai),
            _similarity(audio, text, self.logit_scale_at),
            _similarity(image, text, self.logit_scale),
        )

    def contrastive_loss(self, logits: Logits) -> Tensor:
        """AudioCLIP's training loss (scalar) of square logits whose diagonal holds the true pairs.

        The cross-entropies along rows and along columns, summed over the P given pairs of modalities and
        divided by P! (as published), plus the norm penalty of the FBSP filters.

        Raises:
            ValueError: no pair of modalities, or logits that are not square.
        """
        pairs = [pair for pair in logits if pair is not None]
        if not pairs or any(pair.shape[0] != pair.shape[1] for pair in pairs):
            raise ValueError(f"expected square logits of one to three pairs, got {[tuple(p.shape) for p in pairs]}")
        total = self.audio.fbsp.norm_penalty()
        for pair in pairs:
            target = torch.arange(len(pair), device=pair.device)
            both_ways = F.cross_entropy(pair, target) + F.cross_entropy(pair.T, target)
            total = total + both_ways / math.factorial(len(pairs))
        return total

    def _validate_images(self, images: Tensor) -> Tensor:
        """The images in the tower's dtype; ValueError unless (N, 3, H, W) floats of 32 pixels or more."""
        shape = tuple(images.shape)
        if images.ndim != 4 or shape[1] != 3 or min(shape[2:]) < 32:
            raise ValueError(f"images must be (N, 3, H, W) with H, W >= 32, got {shape}")
        if not images.is_floating_point():
            raise ValueError(f"images must be normalized floats, got {images.dtype}")
        return images.to(self.visual.conv1.weight.dtype)


def scale_waveform(waveform: Tensor, fidelity: Fidelity) -> Tensor:
    """Scale a waveform to the input range of the audio tower under a fidelity.

    Raises:
        ValueError: as in :meth:`AudioCLIP.encode_audio`.
    """
    if not waveform.is_floating_point():
        raise ValueError(f"waveform must be floats in [-1, 1], got {waveform.dtype} (divide int16 by 32768)")
    peak = waveform.detach().abs().max().item() if waveform.numel() else 0.0
    if not math.isfinite(peak):
        raise ValueError("waveform contains NaN or infinite samples")
    if peak > PEAK_LIMIT:
        raise ValueError(f"waveform must be in [-1, 1], but peaks at {peak:g} (divide int16 by 32768)")
    # Scaling by a power of two is exact.
    return waveform.float() * 32768 if fidelity == "corrected" else waveform


def tokenize(texts: Sequence[str], context_length: int = 77) -> Tensor:
    """CLIP token ids (N, context_length), zero-padded; a text that does not fit raises ValueError."""
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError(f"texts must be a list of at least one string, got {texts!r}")
    tokenizer = _tokenizer()
    ids = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        tokens = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
        # open_clip's own call truncates a long text; the original raises an error.
        if len(tokens) > context_length:
            raise ValueError(f"text of more than {context_length} tokens ({len(tokens)}): {text!r}")
        row[: len(tokens)] = torch.tensor(tokens)
    return ids


@lru_cache(maxsize=1)
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()  # reads the vocabulary that ships with open_clip


def _similarity(rows: Tensor | None, columns: Tensor | None, log_scale: Tensor) -> Tensor | None:
    if rows is None or columns is None:
        return None
    # Half precision would round a logit near 100 to steps of a half.
    with torch.autocast(rows.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(rows.dtype, columns.dtype), torch.float32)
        unit_rows, unit_columns = (x.to(dtype) / x.to(dtype).norm(dim=-1, keepdim=True) for x in (rows, columns))
        return log_scale.exp().clamp(1, 100) * unit_rows @ unit_columns.T
