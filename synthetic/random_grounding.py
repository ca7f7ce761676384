"""Write a tiny CLAP and a tiny GroundingDINO with random weights, in the format of transformers.

    python -m synthetic.random_grounding [--out pretrained/tiny]

They stand in for the real networks where the method box_prompt is run without a download, in the tests and the
synthetic study: every step runs, and the predictions are random. Requires pip install -e .[grounding]
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertTokenizer,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from utils.cli import Parser, cli_entry
from utils.paths import expand_user

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_clap(folder: Path, fusion: bool = False, seed: int = 0) -> Path:
    """Write a random CLAP, whose tokens are letters and whose audio input is as that of the real one.

    Args:
        folder: to write into.
        fusion: whether it has the feature fusion of CLAP's "fused" checkpoints.
        seed: of the weights.

    Returns:
        The folder.
    """
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    letters = {letter: len(special) + index for index, letter in enumerate(LETTERS + LETTERS.upper() + " ,()-")}
    tokenizer = Tokenizer(models.WordLevel(special | letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    text = ClapTextConfig(
        vocab_size=len(special | letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=130,
        projection_dim=12,
        initializer_factor=20.0,  # otherwise all texts have nearly the same embedding
    )
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=8,
        hidden_size=16,
        depths=[1, 1],
        num_attention_heads=[1, 2],
        projection_dim=12,
        num_hidden_layers=2,
        enable_fusion=fusion,
        fusion_type="channel_map" if fusion else None,
        initializer_factor=20.0,
    )
    torch.manual_seed(seed)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def save_detector(folder: Path, seed: int = 0, multimodal: bool = False) -> Path:
    """Write a random GroundingDINO, whose tokens are letters and whose frames are 96 pixels high.

    Args:
        folder: to write into.
        seed: of the weights.
        multimodal: write an MM-GroundingDINO.

    Returns:
        The folder.
    """
    vocabulary = [f"[unused{i}]" for i in range(1100)]
    vocabulary[0], vocabulary[100], vocabulary[101:104] = "[PAD]", "[UNK]", ["[CLS]", "[SEP]", "[MASK]"]
    vocabulary[1012], vocabulary[1029] = ".", "?"  # the network expects these at fixed indices
    for index, letter in enumerate(LETTERS):
        vocabulary[200 + index], vocabulary[300 + index] = letter, f"##{letter}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config_class, network_class = _detector_classes(multimodal)
    config = config_class(
        backbone_config=SwinConfig(  # type: ignore[call-arg]  # out_indices is accepted, but not declared
            embed_dim=8,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 2],
            window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=128,
        ),
        d_model=32,
        num_queries=12,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        init_std=0.1,
    )
    torch.manual_seed(seed)
    network = network_class(config)
    for name, values in network.named_parameters():
        if "bbox_embed" in name:  # its last layer is initialized to zero, which would give all boxes the same size
            torch.nn.init.normal_(values, std=0.1)
        if name == "model.decoder.layer_norm.weight":  # keeps the scores away from 1
            torch.nn.init.constant_(values, 0.25)
    network.save_pretrained(folder)
    GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


def _detector_classes(multimodal: bool) -> tuple[Any, Any]:
    """Configuration and network of MM-GroundingDINO or of GroundingDINO."""
    if multimodal:
        return MMGroundingDinoConfig, MMGroundingDinoForObjectDetection
    return GroundingDinoConfig, GroundingDinoForObjectDetection


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__, prog="python -m synthetic.random_grounding")
    parser.add_argument(
        "--out", type=expand_user, default=Path("pretrained/tiny"), help="output folder (default pretrained/tiny)"
    )
    args = parser.parse_args(argv)
    save_clap(args.out / "clap")
    save_detector(args.out / "detector")
    print(f"{args.out}: wrote clap and detector with random weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
