"""Make a CLAP and a GroundingDINO of a few thousand weights each, drawn at random, in transformers' format.

    python -m synthetic.random_grounding [--out pretrained/tiny]

They stand in for the real ones where setting box_prompt is to be run without a download (the tests, the miniature's
rows): every step of it is gone through, and what it finds is chance. Needs the extra: pip install -e .[grounding]
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence
from pathlib import Path

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
    PreTrainedTokenizerFast,
    SwinConfig,
)

from utils.cli import Parser, cli_entry
from utils.paths import expand_user

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_clap(folder: Path, fusion: bool = False, seed: int = 0) -> Path:
    """A CLAP that reads letters and hears as the real one does."""
    marks = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    letters = {letter: len(marks) + place for place, letter in enumerate(LETTERS + LETTERS.upper() + " ,()-")}
    tokenizer = Tokenizer(models.WordLevel(marks | letters, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    text = ClapTextConfig(
        vocab_size=len(marks | letters),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=130,
        projection_dim=12,
        initializer_factor=20.0,  # or every text ends up in the same place
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


def save_detector(folder: Path, seed: int = 0) -> Path:
    """A GroundingDINO that reads letters and sees frames at 96 pixels."""
    vocabulary = [f"[unused{i}]" for i in range(1100)]
    vocabulary[0], vocabulary[100], vocabulary[101:104] = "[PAD]", "[UNK]", ["[CLS]", "[SEP]", "[MASK]"]
    vocabulary[1012], vocabulary[1029] = ".", "?"  # the network knows these by their numbers
    for place, letter in enumerate(LETTERS):
        vocabulary[200 + place], vocabulary[300 + place] = letter, f"##{letter}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    sizes = GroundingDinoConfig(
        backbone_config=SwinConfig(  # type: ignore[call-arg]  # out_indices is taken, but not declared
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
    network = GroundingDinoForObjectDetection(sizes)
    for name, values in network.named_parameters():
        if "bbox_embed" in name:  # of which the last layer starts at zero: all boxes would be of one size
            torch.nn.init.normal_(values, std=0.1)
        if name == "model.decoder.layer_norm.weight":  # so that not everything is certain
            torch.nn.init.constant_(values, 0.25)
    network.save_pretrained(folder)
    GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__, prog="python -m synthetic.random_grounding")
    parser.add_argument("--out", type=expand_user, default=Path("pretrained/tiny"), help="default pretrained/tiny")
    args = parser.parse_args(argv)
    save_clap(args.out / "clap")
    save_detector(args.out / "detector")
    print(f"{args.out}: clap and detector, both random")
    return 0


if __name__ == "__main__":
    sys.exit(main())
