"""A small SAM 3 with random weights, in the format of transformers."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
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
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3VisionConfig,
    Sam3ViTConfig,
)

from synthetic.random_sam2 import tiny_config

SIDE, PATCH, WIDTH = 64, 16, 16
LETTERS = "abcdefghijklmnopqrstuvwxyz "


def save_sam3(folder: Path, seed: int = 0) -> None:
    """Write a small SAM 3, whose tokens are letters."""
    torch.manual_seed(seed)
    vit = Sam3ViTConfig(
        **_sizes(WIDTH),
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
    model = Sam3Model(_detector_config(vision, WIDTH))
    _amplify(model, 8)
    nn.init.constant_(model.detr_decoder.presence_head.layer3.bias, 2.5)  # so that instances pass a threshold
    model.save_pretrained(folder)
    _save_processor(folder, SIDE)


def save_sam3_video(folder: Path, seed: int = 0) -> None:
    """Write a small network of the kind that facebook/sam3 is: a detector and a tracker with one image tower."""
    torch.manual_seed(seed)
    tracker = tiny_config("sam3_tracker", video=True)
    vision = tracker.vision_config
    detector = _detector_config(vision, vision.fpn_hidden_size)
    Sam3VideoModel(Sam3VideoConfig(detector_config=detector, tracker_config=tracker)).save_pretrained(folder)
    # Its save_pretrained writes the tracker's prefix twice, where loading, as of the public file, expects it once.
    weights = load_file(folder / "model.safetensors")
    weights = {name.replace("tracker_model.tracker_model.", "tracker_model."): each for name, each in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _save_processor(folder, vision.image_size)


def _sizes(width: int) -> dict[str, Any]:
    return {"hidden_size": width, "num_attention_heads": 2, "intermediate_size": 2 * width}


def _detector_config(vision: Sam3VisionConfig, width: int) -> Sam3Config:
    sizes = _sizes(width)
    text = CLIPTextConfig(
        **sizes, vocab_size=64, projection_dim=width, num_hidden_layers=1, max_position_embeddings=32, eos_token_id=2
    )
    return Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config=Sam3GeometryEncoderConfig(**sizes, num_layers=1),
        detr_encoder_config=Sam3DETREncoderConfig(**sizes, num_layers=1),
        detr_decoder_config=Sam3DETRDecoderConfig(**sizes, num_layers=2, num_queries=8),
        mask_decoder_config=Sam3MaskDecoderConfig(hidden_size=width, num_attention_heads=2),
    )


def _save_processor(folder: Path, side: int) -> None:
    size = {"height": side, "width": side}
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
