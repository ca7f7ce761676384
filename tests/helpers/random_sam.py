"""Sams of random weights whose masks are parts of the frame, sure of themselves, that differ with the point.

Plainly random weights see next to nothing of the point: all masks are alike and the first of them suppresses the rest.
"""

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from models.sam import SamConfig, build_sam

MINI = SamConfig(
    128, 4, 4, (1, 3), image_size=256, window=8, relative=False, channels=64, decoder_mlp=256, iou_hidden=64
)
COVERED = (0.5, 0.06, 0.12, 0.24)  # share of the frame that the four masks take, about


@torch.no_grad()
def random_sam(sizes: SamConfig | str = MINI, seed: int = 0, sure: float = 6.0) -> Sam:
    """A Sam of random weights in eval mode. sure: the spread of its logits."""
    torch.manual_seed(seed)
    sam = build_sam(sizes)
    sam.image_encoder.pos_embed.normal_(0, 0.1)
    for block in sam.image_encoder.blocks:
        if block.attn.use_rel_pos:
            block.attn.rel_pos_h.normal_(0, 0.1)
            block.attn.rel_pos_w.normal_(0, 0.1)
    sam.image_encoder.neck[3].weight.mul_(0.1)  # quiet images: where a token is counts for more
    sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(0.5)
    for embedding in [*sam.prompt_encoder.point_embeddings, sam.prompt_encoder.no_mask_embed]:
        embedding.weight.mul_(0.1)
    decoder, transformer = sam.mask_decoder, sam.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    for attention in attentions:  # queries and keys alike: a point and the tokens about it find each other
        nn.init.orthogonal_(attention.q_proj.weight, gain=2)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.orthogonal_(attention.v_proj.weight, gain=2)
        nn.init.orthogonal_(attention.out_proj.weight, gain=2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
            projection.bias.normal_(0, 0.02)
    for layer in (decoder.output_upscaling[0], decoder.output_upscaling[3]):  # smooth: a token's pixels nearly alike
        layer.weight.copy_(5 * layer.weight.mean((2, 3), keepdim=True) + layer.weight / 8)
    for linear in decoder.iou_prediction_head.layers:
        linear.weight.mul_(3)
    _settle(sam, sure)
    return sam


def _settle(sam: Sam, sure: float) -> None:
    """Give the logits no mean of their own but one that makes masks of the sizes wanted, by a constant channel."""
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
    for last, maps_of_kind, covered in zip(lasts, logits.unbind(1), COVERED, strict=True):
        scale = sure / maps_of_kind.std()
        last.weight.mul_(scale)
        last.bias[0] = -scale * maps_of_kind.flatten()[::97].quantile(1 - covered) / F.gelu(torch.ones(()))
