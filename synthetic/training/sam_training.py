"""The training of SAM's small weights: initialization and losses.

The ground truth is the exact masks of rendered scenes (sam_data.py). A point on the background has no mask; its
target is a predicted IoU of 0, so that proposals there are rejected. Two auxiliary heads predict from the image
embedding what is foreground and which locations belong to the same object, which trains the encoder before the
prompts can; they are discarded at the end. Source: Kirillov et al., "Segment Anything" (2023): the best of three
masks, and regression of their IoU.
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from models.sam import SamConfig, build_sam
from synthetic.training.sam_data import Sample
from synthetic.training.sam_prompts import SIDE

SIZES: dict[str, Any] = {  # arguments of SamConfig
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
MASK_LOGIT_SCALE = 4.0  # of the logits relative to those in the loss, which suits SAM's default stability offset, 1
MASK_SIDE = 112  # resolution at which masks are compared


def build_sam_mini(sizes: dict[str, Any], seed: int) -> Sam:
    """A new SAM of the given sizes, initialized from the seed so that prompts attend to their locations at once."""
    torch.manual_seed(seed)
    sam = build_sam(SamConfig(**sizes)).requires_grad_(True)
    transformer, prompts, decoder = sam.mask_decoder.transformer, sam.prompt_encoder, sam.mask_decoder
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        for attention in attentions:  # equal projections: a point attends to the cells at its location
            nn.init.orthogonal_(attention.q_proj.weight, gain=2)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            nn.init.zeros_(attention.q_proj.bias)
            nn.init.zeros_(attention.k_proj.bias)
        for embedding in (*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed):
            embedding.weight.normal_(0, 0.1)
        for tokens in (decoder.iou_token, decoder.mask_tokens):
            tokens.weight.normal_(0, 0.3)
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= MASK_LOGIT_SCALE
            mlp.layers[-1].bias *= MASK_LOGIT_SCALE
        nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.1)
    prompts.mask_downscaling.requires_grad_(False)  # the study has no mask prompts
    return sam


class AuxiliaryHeads(nn.Module):
    """Heads on the image embedding that are used in training only.

    Args:
        channels: of the embedding.
        cell: foreground predictions per location, in each direction.
        seed: of the initialization.
    """

    def __init__(self, channels: int, cell: int = 4, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.cell = cell
        self.foreground = nn.Conv2d(channels, cell * cell, 1)
        self.affinity = nn.Conv2d(channels, 32, 1)
        self.scale = nn.Parameter(torch.tensor([4.0, -1.0]))

    def forward(self, embedding: Tensor, masks: Tensor) -> Tensor:
        """The loss of embeddings (B, C, h, w) given masks (B, objects, 224, 224): foreground and affinity, a scalar."""
        height, width = embedding.shape[2:]
        foreground = F.interpolate(masks.sum(1, keepdim=True), (height * self.cell, width * self.cell), mode="area")
        logits = F.pixel_shuffle(self.foreground(embedding), self.cell)
        foreground_loss = F.binary_cross_entropy_with_logits(logits, foreground.clamp(0, 1))
        fractions = F.adaptive_avg_pool2d(masks, (height, width)).flatten(2)  # (B, objects, locations)
        background = (1 - fractions.sum(1, keepdim=True)).clamp(0, 1)
        same = fractions.transpose(1, 2) @ fractions + background.transpose(1, 2) @ background
        features = F.normalize(self.affinity(embedding).flatten(2), dim=1)
        logits = self.scale[0] * (features.transpose(1, 2) @ features) + self.scale[1]
        weight = 1.05 - background.transpose(1, 2) @ background  # less for pairs of background locations
        affinity = F.binary_cross_entropy_with_logits(logits, same.clamp(0, 1), weight, reduction="sum")
        return foreground_loss + affinity / weight.sum()


def decode(sam: Sam, embedding: Tensor, points: Tensor, labels: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
    """Decode prompts on several images at once.

    SAM's decoder takes the embedding of one image and adds the dense embedding of each prompt to it. Here the former is
    zero, and the embedding of each prompt's image is added to the latter.

    Args:
        sam: the model.
        embedding: of the images, (B, C, h, w).
        points: (N, n, 2) in pixels of SAM's input.
        labels: (N, n); 2 and 3 for the corners of boxes.
        image_index: (N,), the image of each prompt.

    Returns:
        Low-resolution logits (N, 4, h, w), the single mask first, and predicted IoUs (N, 4).
    """
    encoder = sam.prompt_encoder
    if labels[0, 0] == 2:
        sparse, dense = encoder(None, points.flatten(1), None)
    else:
        sparse, dense = encoder((points, labels), None, None)
    return sam.mask_decoder.predict_masks(
        torch.zeros_like(embedding[:1]), encoder.get_dense_pe(), sparse, dense + embedding[image_index]
    )


def upsample_masks(masks: Tensor) -> Tensor:
    """Upsample logits (..., h, w) to `MASK_SIDE`, at which they are compared."""
    return F.interpolate(masks, (MASK_SIDE, MASK_SIDE), mode="bilinear", align_corners=False)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 minus the soft Dice coefficient of logits and masks (..., h, w): (...)."""
    probability = logits.sigmoid()
    intersection = (probability * target).sum((-2, -1))
    return 1 - (2 * intersection + 1) / (probability.sum((-2, -1)) + target.sum((-2, -1)) + 1)


def mask_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted sum of cross-entropy and Dice loss of logits and masks (..., h, w): (...)."""
    target = target.expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    return 5 * entropy + dice_loss(logits, target)


def training_losses(sam: Sam, heads: AuxiliaryHeads, batch: Sample) -> dict[str, Tensor]:
    """The losses of a batch of `PromptDataset`, to be summed.

    Returns:
        mask: of the best of three masks, and of the single mask.
        multimask: of all three masks.
        iou: of the predicted IoUs.
        auxiliary: of the auxiliary heads.
    """
    masks = batch["masks"].float()
    embedding = sam.image_encoder(sam.preprocess(batch["image"].float()))
    scale = sam.image_encoder.img_size / SIDE
    outputs = []
    for points, labels in zip(batch["points"], batch["labels"], strict=True):
        index = torch.arange(len(points)).repeat_interleave(points.shape[1])
        outputs.append(decode(sam, embedding, points.flatten(0, 1) * scale, labels.flatten(0, 1), index))
    logits, predicted_iou = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    image_index = torch.cat([torch.arange(len(t)).repeat_interleave(t.shape[1]) for t in batch["targets"]])
    target = torch.cat([t.flatten() for t in batch["targets"]])
    has_target = target >= 0

    resized = F.interpolate(masks, (MASK_SIDE, MASK_SIDE), mode="area")
    ground_truth = (resized[image_index, target.clamp(min=0)] > 0.5) & has_target[:, None, None]
    with torch.no_grad():
        binary = upsample_masks(logits) > 0
        intersection = torch.logical_and(binary, ground_truth[:, None]).sum((-2, -1))
        union = torch.logical_or(binary, ground_truth[:, None]).sum((-2, -1))
        iou = intersection / union.clamp(min=1)

    ground_truth = ground_truth[has_target, None].float()
    coarse = F.interpolate(ground_truth, logits.shape[-2:], mode="area")
    scaled = logits[has_target] / MASK_LOGIT_SCALE
    multimask = mask_loss(scaled[:, 1:], coarse)
    best = multimask.detach().argmin(1) + 1
    rows = torch.arange(len(scaled))
    chosen = upsample_masks(torch.stack([scaled[rows, best], scaled[:, 0]], 1))
    return {
        "mask": mask_loss(chosen, ground_truth).mean(0).sum(),
        "multimask": 0.2 * multimask.mean(),
        "iou": 2 * F.mse_loss(predicted_iou, iou),
        "auxiliary": heads(embedding, masks),
    }
