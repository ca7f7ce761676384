"""Tiny random networks of transformers' own classes, in folders as their save_pretrained writes them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    DacConfig,
    ModernBertConfig,
    PeAudioConfig,
    PeAudioEncoderConfig,
    PeAudioFeatureExtractor,
    PeAudioFrameLevelModel,
    PeAudioVideoConfig,
    PeAudioVideoModel,
    PeAudioVideoProcessor,
    PeVideoVideoProcessor,
    PreTrainedTokenizerFast,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
AUDIO_RATE = 48_000  # Hz
SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
VOCABULARY = SPECIAL | {letter: len(SPECIAL) + index for index, letter in enumerate(LETTERS + " -.,()")}


def letter_tokenizer(**names: Any) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are lower-case letters."""
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", **names}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _text_config() -> ModernBertConfig:
    return ModernBertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )


def _pe_sizes() -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }


def _audio_config() -> dict[str, Any]:
    dac = DacConfig(downsampling_ratios=[2, 8, 10, 12], encoder_hidden_size=2, codebook_dim=4).to_dict()
    return {**_pe_sizes(), "dac_config": dac}


def _spread(model: Any) -> Any:
    """The network with larger weights: with transformers' own, all inputs have nearly the same output."""
    for values in model.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.3)
    return model


def save_pe_av(folder: Path, seed: int = 0) -> Path:
    """Write a random PE-AV, whose audio input is that of the real one and whose frames are of 32 × 32 pixels.

    Returns:
        The folder.
    """
    vision = {
        "architecture": "vit_pe_core_tiny_patch16_384",
        "do_pooling": True,
        "num_classes": 8,
        "global_pool": "map",
        "model_args": {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "ref_feat_shape": (2, 2)},
    }
    encoder = {
        **_pe_sizes(),
        "audio_config": _audio_config(),
        "video_config": {**_pe_sizes(), "vision_config": vision},
    }
    torch.manual_seed(seed)
    config = PeAudioVideoConfig(text_config=_text_config().to_dict(), audio_video_config=encoder)
    _spread(PeAudioVideoModel(config)).save_pretrained(folder)
    video_processor = PeVideoVideoProcessor(
        size={"height": 32, "width": 32},
        do_resize=True,
        do_rescale=True,
        do_normalize=True,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    PeAudioVideoProcessor(PeAudioFeatureExtractor(), video_processor, letter_tokenizer()).save_pretrained(folder)
    return folder


def save_pe_a_frame(folder: Path, seed: int = 0) -> Path:
    """Write a random PE-A-Frame, whose audio input is that of the real one.

    Returns:
        The folder.
    """
    torch.manual_seed(seed)
    config = PeAudioConfig(text_config=_text_config().to_dict(), audio_config=PeAudioEncoderConfig(**_audio_config()))
    model = _spread(PeAudioFrameLevelModel(config))
    torch.nn.init.constant_(model.text_audio_logit_scale, 0.5)
    model.save_pretrained(folder)
    PeAudioFeatureExtractor().save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


def save_sam3(folder: Path, seed: int = 0) -> Path:
    """Write a random SAM 3, whose frames are of 56 × 56 pixels and which finds up to six instances.

    Returns:
        The folder.
    """
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32}
    backbone = {
        **sizes,
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 2,
        "image_size": 56,
        "pretrain_image_size": 56,
        "window_size": 2,
        "global_attn_indexes": [1],
    }
    text = CLIPTextConfig(
        **sizes,
        vocab_size=len(VOCABULARY),
        projection_dim=16,
        num_hidden_layers=1,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config=text.to_dict(),
        geometry_encoder_config={**sizes, "num_layers": 1},
        detr_encoder_config={**sizes, "num_layers": 1},
        detr_decoder_config={**sizes, "num_layers": 1, "num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4},
    )
    torch.manual_seed(seed)
    _spread(Sam3Model(config)).save_pretrained(folder)
    images = Sam3ImageProcessor(size={"height": 56, "width": 56}, mask_size={"height": 16, "width": 16})
    Sam3Processor(images, letter_tokenizer()).save_pretrained(folder)
    return folder
