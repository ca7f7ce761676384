"""Networks of the SAM 2 family with random weights, of transformers' own classes, as folders like the public ones.

At the tiny sizes they are for tests; at the published sizes ("sam2.1-hiera-tiny", "edgetam") for measuring time and
memory. With transformers' initialization the prompt hardly changes the output; here layers are scaled so that masks
differ from prompt to prompt.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

SIDE = 128  # pixels, of the tiny networks' input
HIDDEN = 128  # channels; the memory, of 64, is hard-coded in transformers and must divide it
GRIDS = [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]
DECODER: dict[str, Any] = {"hidden_size": HIDDEN, "mlp_dim": 128, "num_attention_heads": 4, "iou_head_hidden_dim": 64}
MEMORY: dict[str, Any] = {
    "image_size": SIDE,
    "memory_attention_hidden_size": HIDDEN,
    "memory_attention_num_layers": 1,
    "memory_attention_rope_feat_sizes": GRIDS[-1],
    "memory_encoder_hidden_size": HIDDEN,
    "mask_downsampler_embed_dim": HIDDEN,
    "memory_fuser_embed_dim": HIDDEN,
    "memory_fuser_intermediate_dim": 128,
    "memory_fuser_num_layers": 1,
}


def tiny_config(family: str, *, video: bool) -> Any:
    """The configuration of a tiny network: family "sam2", "edgetam" or "sam3_tracker"."""
    import transformers

    backbone: Any
    vision: Any
    classes: Any
    if family == "sam2":
        backbone = transformers.Sam2HieraDetConfig(
            hidden_size=16,
            blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[16, 32, 64, 128],
            num_attention_heads_per_stage=[1, 1, 2, 4],
            window_size_per_stage=[8, 4, 8, 4],
            global_attention_blocks=[3],
            image_size=[SIDE, SIDE],
        )
        vision = transformers.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[128, 64, 32, 16],
            backbone_feature_sizes=GRIDS,
            fpn_hidden_size=HIDDEN,
        )
        prompts = {"hidden_size": HIDDEN, "image_size": SIDE}
        memory = {**MEMORY, "memory_attention_feed_forward_hidden_size": 128}
        classes = transformers.Sam2Config, transformers.Sam2VideoConfig
    elif family == "edgetam":
        backbone = timm_backbone("test_convnext")
        vision = transformers.EdgeTamVisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[64, 48, 32, 24],
            backbone_feature_sizes=GRIDS,
            fpn_hidden_size=HIDDEN,
        )
        prompts = {"hidden_size": HIDDEN, "image_size": SIDE}
        memory = {
            **MEMORY,
            "memory_attention_mlp_hidden_size": 128,
            "memory_attention_rope_k_sizes": [4, 4],
            "perceiver_resampler_num_latents": 16,
            "perceiver_resampler_num_latents_2d": 16,
            "perceiver_resampler_num_layers": 1,
        }
        classes = transformers.EdgeTamConfig, transformers.EdgeTamVideoConfig
    else:
        side = SIDE // 16 * 14  # patches have 14 pixels
        backbone = transformers.Sam3ViTConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=side,
            window_size=4,
            global_attn_indexes=[1],
            pretrain_image_size=side // 2,
        )
        vision = transformers.Sam3VisionConfig(
            backbone_config=backbone, backbone_feature_sizes=GRIDS, fpn_hidden_size=HIDDEN
        )
        prompts = {"hidden_size": HIDDEN, "image_size": side, "patch_size": 14}
        memory = {**MEMORY, "image_size": side, "memory_attention_feed_forward_hidden_size": 128}
        classes = transformers.Sam3TrackerConfig, transformers.Sam3TrackerVideoConfig
    return classes[video](
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=DECODER, **(memory if video else {})
    )


def published_config(name: str, *, video: bool = False) -> Any:
    """The configuration of a network of the published size: "sam2.1-hiera-tiny" or "edgetam"."""
    import transformers

    if name == "edgetam":
        vision = transformers.EdgeTamVisionConfig(backbone_config=timm_backbone("repvit_m1"))
        return (transformers.EdgeTamVideoConfig if video else transformers.EdgeTamConfig)(vision_config=vision)
    return transformers.Sam2VideoConfig() if video else transformers.Sam2Config()


def timm_backbone(architecture: str) -> Any:
    """EdgeTAM's configuration of a backbone of timm that gives four feature maps."""
    import transformers

    arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    return transformers.TimmWrapperConfig(architecture=architecture, model_args=arguments)


def random_network(config: Any, seed: int = 0) -> Any:
    """A network in eval mode, of the class that the configuration belongs to."""
    import transformers

    torch.manual_seed(seed)
    name = type(config).__name__.removesuffix("Config") + "Model"
    model = getattr(transformers, name)(config)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=1.5 / layer.weight[0].numel() ** 0.5)
    return model.eval()


def image_processor(model: Any) -> Any:
    """The image processor of a network."""
    import transformers

    side, mask = int(model.prompt_encoder.input_image_size), 4 * model.prompt_encoder.image_embedding_size[0]
    return transformers.Sam2ImageProcessor(
        size={"height": side, "width": side}, mask_size={"height": mask, "width": mask}
    )


def save_network(model: Any, folder: Path) -> Path:
    """Save a network and its image processor as folders of the hub are; returns the folder."""
    model.save_pretrained(folder)
    image_processor(model).save_pretrained(folder)
    return folder


def random_folder(folder: Path, family: str = "sam2", *, video: bool = True, seed: int = 0) -> Path:
    """Write a folder of a tiny network with random weights; returns it."""
    return save_network(random_network(tiny_config(family, video=video), seed), folder)
