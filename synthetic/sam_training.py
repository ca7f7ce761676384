"""The miniature SAM: its start, its loss, and what teaches it.

It learns from the exact masks of composed scenes (synthetic.sam_data). A point on the background has no mask
to learn, only the predicted IoU, 0, so that proposals there are rejected. Two linear heads that are thrown away
afterwards read the image embedding: what is foreground, and which places belong to the same thing. They teach the
encoder before the prompts can.
Source: Kirillov et al., "Segment Anything" (2023): best of three masks, and regression of their IoU.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from models.sam import SamConfig, build_sam
from synthetic.sam_data import SIDE, Sample

SIZES: dict[str, Any] = {  # what SamConfig is made of
    "width": 128,
    "depth": 4,
    "heads": 4,
    "global_blocks": [1, 3],
    "image_size": 256,
    "patch": 16,
    "window": 8,
    "relative": False,
    "channels": 64,
    "decoder_mlp": 256,
    "decoder_heads": 4,
    "iou_hidden": 64,
}
SHARPNESS = 4.0  # the loss sees the logits divided by this, so that SAM's stock stability offset, 1, is a small one
MASK_SIDE = 112  # the masks are compared at this resolution


def build_sam_mini(sizes: dict[str, Any], seed: int) -> Sam:
    """A new model whose weights are those of the seed, started so that prompts find their places soon."""
    torch.manual_seed(seed)
    sam = build_sam(SamConfig(**sizes)).requires_grad_(True)
    transformer, prompts, decoder = sam.mask_decoder.transformer, sam.prompt_encoder, sam.mask_decoder
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:  # equal projections: a point attends to the cells that lie where it lies
            nn.init.orthogonal_(attention.q_proj.weight, gain=2)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            nn.init.zeros_(attention.q_proj.bias)
            nn.init.zeros_(attention.k_proj.bias)
        for embedding in (*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed):
            embedding.weight.normal_(0, 0.1)
        for tokens in (decoder.iou_token, decoder.mask_tokens):
            tokens.weight.normal_(0, 0.3)
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= SHARPNESS
            mlp.layers[-1].bias *= SHARPNESS
        nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.1)
    prompts.mask_downscaling.requires_grad_(False)  # the study gives no mask as a prompt
    return sam


class AuxiliaryHeads(nn.Module):
    """The heads that read the image embedding in training only."""

    def __init__(self, channels: int, cell: int = 4, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.cell = cell
        self.foreground = nn.Conv2d(channels, cell * cell, 1)
        self.kinship = nn.Conv2d(channels, 32, 1)
        self.scale = nn.Parameter(torch.tensor([4.0, -1.0]))

    def forward(self, embedding: Tensor, masks: Tensor) -> Tensor:
        """The loss of an embedding (B, C, h, w) against masks (B, things, 224, 224)."""
        height, width = embedding.shape[2:]
        anything = F.interpolate(masks.sum(1, keepdim=True), (height * self.cell, width * self.cell), mode="area")
        seen = F.pixel_shuffle(self.foreground(embedding), self.cell)
        foreground = F.binary_cross_entropy_with_logits(seen, anything.clamp(0, 1))
        shares = F.adaptive_avg_pool2d(masks, (height, width)).flatten(2)  # (B, things, cells)
        rest = (1 - shares.sum(1, keepdim=True)).clamp(0, 1)
        kin = shares.transpose(1, 2) @ shares + rest.transpose(1, 2) @ rest
        place = F.normalize(self.kinship(embedding).flatten(2), dim=1)
        alike = self.scale[0] * (place.transpose(1, 2) @ place) + self.scale[1]
        weight = 1.05 - rest.transpose(1, 2) @ rest  # two places of the background say little
        kinship = F.binary_cross_entropy_with_logits(alike, kin.clamp(0, 1), weight, reduction="sum") / weight.sum()
        return foreground + kinship


def decode(sam: Sam, embedding: Tensor, points: Tensor, labels: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """Low-resolution logits (N, 4, h, w) and predicted IoUs (N, 4) of prompts on several images.

    embedding: (B, C, h, w). points: (N, n, 2) in pixels of SAM's image. labels: (N, n); 2 and 3 are a box's corners.
    owner: (N,), the image of each prompt. The decoder takes one image, or none and what is added to it: this.
    """
    encoder = sam.prompt_encoder
    if labels[0, 0] == 2:
        sparse, dense = encoder(None, points.flatten(1), None)
    else:
        sparse, dense = encoder((points, labels), None, None)
    return sam.mask_decoder.predict_masks(
        torch.zeros_like(embedding[:1]), encoder.get_dense_pe(), sparse, dense + embedding[owner]
    )


def upsample_masks(masks: Tensor) -> Tensor:
    """Logits as they are compared."""
    return F.interpolate(masks, (MASK_SIDE, MASK_SIDE), mode="bilinear", align_corners=False)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - the soft Dice coefficient of masks (..., h, w)."""
    probability = logits.sigmoid()
    both = (probability * target).sum((-2, -1))
    return 1 - (2 * both + 1) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy and Dice of masks (..., h, w): one number a mask."""
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    return 5 * entropy + dice_loss(logits, target)


def training_losses(sam: Sam, teacher: AuxiliaryHeads, batch: Sample) -> dict[str, Tensor]:
    """The loss of a batch of Stream, in parts that are to be added."""
    masks = batch["masks"].float()
    embedding = sam.image_encoder(sam.preprocess(batch["image"].float()))
    stretch = sam.image_encoder.img_size / SIDE
    outputs = []
    for points, labels in zip(batch["points"], batch["labels"], strict=True):
        owner = torch.arange(len(points)).repeat_interleave(points.shape[1])
        outputs.append(decode(sam, embedding, points.flatten(0, 1) * stretch, labels.flatten(0, 1), owner))
    logits, scores = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    owner = torch.cat([torch.arange(len(t)).repeat_interleave(t.shape[1]) for t in batch["targets"]])
    target = torch.cat([t.flatten() for t in batch["targets"]])
    meant = target >= 0

    small = F.interpolate(masks, (MASK_SIDE, MASK_SIDE), mode="area")
    wanted = (small[owner, target.clamp(min=0)] > 0.5) & meant[:, None, None]
    with torch.no_grad():
        hard = upsample_masks(logits) > 0
        both, either = ((f(hard, wanted[:, None])).sum((-2, -1)) for f in (torch.logical_and, torch.logical_or))
        iou = both / either.clamp(min=1)

    wanted = wanted[meant, None].float()
    coarse = F.interpolate(wanted, logits.shape[-2:], mode="area")
    soft = logits[meant] / SHARPNESS
    three = mask_loss(soft[:, 1:], coarse)
    best = three.detach().argmin(1) + 1
    rows = torch.arange(len(soft))
    chosen = upsample_masks(torch.stack([soft[rows, best], soft[:, 0]], 1))
    return {
        "mask": mask_loss(chosen, wanted).mean(0).sum(),
        "three": 0.2 * three.mean(),
        "iou": 2 * F.mse_loss(scores, iou),
        "teacher": teacher(embedding, masks),
    }
