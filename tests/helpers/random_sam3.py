"""A small SAM 3 with random weights, in the format of transformers."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPTextConfig,
    PreTrainedTokenizerFast,
    Sam3Config,
    Sam3DETRDecoderConfig,
    Sam3DETREncoderConfig,
    Sam3GeometryEncoderConfig,
    Sam3ImageProcessor,
    Sam3MaskDecoderConfig,
    Sam3Model,
    Sam3Processor,
    Sam3VisionConfig,
    Sam3ViTConfig,
)

SIDE, PATCH, WIDTH = 64, 16, 16
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def save_sam3(folder: Path, seed: int = 0) -> None:
    """Write a small SAM 3, whose tokens are letters."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 2 * WIDTH}
    vit = Sam3ViTConfig(
        **sizes,
        num_hidden_layers=2,
        image_size=SIDE,
        patch_size=PATCH,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=SIDE,
    )
    vision = Sam3VisionConfig(
        backbone_config=vit, fpn_hidden_size=WIDTH, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]
    )
    text = CLIPTextConfig(
        **sizes, vocab_size=64, projection_dim=WIDTH, num_hidden_layers=1, max_position_embeddings=32, eos_token_id=2
    )
    model = Sam3Model(
        Sam3Config(
            vision_config=vision,
            text_config=text,
            geometry_encoder_config=Sam3GeometryEncoderConfig(**sizes, num_layers=1),
            detr_encoder_config=Sam3DETREncoderConfig(**sizes, num_layers=1),
            detr_decoder_config=Sam3DETRDecoderConfig(**sizes, num_layers=2, num_queries=8),
            mask_decoder_config=Sam3MaskDecoderConfig(hidden_size=WIDTH, num_attention_heads=2),
        )
    )
    _amplify(model, 8)
    nn.init.constant_(model.detr_decoder.presence_head.layer3.bias, 2.5)  # so that instances pass a threshold
    model.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    Sam3Processor(image_processor=Sam3ImageProcessor(size=size), tokenizer=_tokenizer()).save_pretrained(folder)


@torch.no_grad()
def _amplify(model: nn.Module, factor: float) -> None:
    """Let outputs depend on the input, which the usual small initial weights hardly do."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "backbone" not in name and "embed" not in name:
            parameter.mul_(factor)


def _tokenizer() -> PreTrainedTokenizerFast:
    special = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    letters = {letter: len(special) + index for index, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(models.WordLevel(special | letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=32,
    )
