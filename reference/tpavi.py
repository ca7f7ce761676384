"""TPAVI with its attention matrix of all pixels by all pixels.

Source: model/TPAVI.py of AVSBench (Zhou et al., "Audio-Visual Segmentation", ECCV 2022).
"""

from torch import Tensor

from models.tpavi import TPAVI


def tpavi(block: TPAVI, maps: Tensor, audio: Tensor | None) -> Tensor:
    """The first output of `block(maps, audio)`, quadratic in the number of pixels.

    Args:
        block: Gives the weights.
        maps: (B, T, C, H, W).
        audio: (B, T, 128), or None for self-attention.

    Returns:
        Maps of the same shape.
    """
    x = maps.transpose(1, 2)
    batch, channels, seconds, height, width = x.shape
    key = x
    if audio is not None:
        aligned = block.align_channel(audio).transpose(1, 2)[..., None, None]
        key = aligned.expand(batch, channels, seconds, height, width)
    theta = block.theta(x).flatten(2).transpose(1, 2)
    phi = block.phi(key).flatten(2)
    g = block.g(x).flatten(2).transpose(1, 2)
    attention = theta @ phi
    y = (attention / attention.shape[-1]) @ g
    y = y.transpose(1, 2).reshape(batch, -1, seconds, height, width)
    z = block.W_z(y) + x
    return block.norm_layer(z.permute(0, 2, 3, 4, 1)).permute(0, 1, 4, 2, 3)
