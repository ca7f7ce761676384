"""SAM networks with random weights whose masks depend on the prompt.

With the usual random initialization the prompt hardly changes the output: all masks are alike, and non-maximum
suppression keeps one of them. Here the layers that relate a point to the image are scaled so that masks cover parts of
the frame, with confident logits, and differ from point to point.
"""

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from models.sam import SamConfig, build_sam

MINI = SamConfig(
    128, 4, 4, (1, 3), image_size=256, window=8, relative=False, channels=64, decoder_mlp=256, iou_hidden=64
)
AREA_FRACTIONS = (0.5, 0.06, 0.12, 0.24)  # of the frame, covered by each of the four masks, approximately


@torch.no_grad()
def random_sam(config: SamConfig | str = MINI, seed: int = 0, logit_std: float = 6.0) -> Sam:
    """A network in eval mode.

    Args:
        config: The architecture, or its name in `models.sam.SAM_CONFIGS`.
        seed: Of torch's global generator, which this sets.
        logit_std: Standard deviation of the mask logits.

    Returns:
        segment-anything's module.
    """
    torch.manual_seed(seed)
    sam = build_sam(config)
    sam.image_encoder.pos_embed.normal_(0, 0.1)
    for block in sam.image_encoder.blocks:
        if block.attn.use_rel_pos:
            block.attn.rel_pos_h.normal_(0, 0.1)
            block.attn.rel_pos_w.normal_(0, 0.1)
    sam.image_encoder.neck[3].weight.mul_(0.1)  # small image features: positions matter more
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(0.5)
    for embedding in [*sam.prompt_encoder.point_embeddings, sam.prompt_encoder.no_mask_embed]:
        embedding.weight.mul_(0.1)
    decoder, transformer = sam.mask_decoder, sam.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:  # equal queries and keys: a point attends to the tokens around it
        nn.init.orthogonal_(attention.q_proj.weight, gain=2)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.orthogonal_(attention.v_proj.weight, gain=2)
        nn.init.orthogonal_(attention.out_proj.weight, gain=2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            projection.bias.normal_(0, 0.02)
    for layer in (
        decoder.output_upscaling[0],
        decoder.output_upscaling[3],
    ):  # smooth: neighboring pixels are similar
        layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True) + layer.weight / 8)
    for linear in decoder.iou_prediction_head.layers:
        linear.weight.mul_(3)
    _calibrate_logits(sam, logit_std)
    return sam


def _calibrate_logits(sam: Sam, logit_std: float) -> None:
    """Remove the mean of the mask logits, scale them, and shift them by a constant channel to cover AREA_FRACTIONS."""
    decoder, encoder = sam.mask_decoder, sam.prompt_encoder
    decoder.output_upscaling[3].weight[:, 0] = 0
    decoder.output_upscaling[3].bias[0] = 1
    side = encoder.input_image_size[0]
    sparse, dense = encoder((side * torch.rand(8, 1, 2), torch.ones(8, 1, dtype=torch.int)), None, None)
    image = 0.1 * torch.randn(1, encoder.embed_dim, *encoder.image_embedding_size)
    maps: list[Tensor] = []
    hook = decoder.output_upscaling.register_forward_hook(lambda _, __, output: maps.append(output))
    decoder.predict_masks(image, encoder.get_dense_pe(), sparse, dense)
    mean = maps[0].mean((0, 2, 3))
    lasts = [mlp.layers[-1] for mlp in decoder.output_hypernetworks_mlps]
    for last in lasts:
        last.weight.sub_(torch.outer(mean, mean @ last.weight) / mean.dot(mean))
        last.bias.zero_()
        last.weight[0] = 0
    hook.remove()
    logits, _ = decoder.predict_masks(image, encoder.get_dense_pe(), sparse, dense)
    for last, mask_logits, fraction in zip(lasts, logits.unbind(1), AREA_FRACTIONS, strict=True):
        scale = logit_std / mask_logits.std()
        last.weight.mul_(scale)
        last.bias[0] = -scale * mask_logits.flatten()[::97].quantile(1 - fraction) / F.gelu(torch.ones(()))
