"""Load a network of the `transformers` package, an optional extra, from a local folder; nothing is fetched.

A folder holds what transformers' save_pretrained writes: config.json, safetensors, the processor's configuration and the
tokenizer's files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from utils.cli import InputError
from utils.files import read_json

EXTRA = "this method needs the transformers package: pip install transformers (environment_config/README.md)"
FILES = ("config.json", "*.safetensors", "*processor_config.json", "tokenizer_config.json")
SOURCES = {"clap": "laion/clap-htsat-unfused", "grounding-dino": "IDEA-Research/grounding-dino-base"}
ELSEWHERE = ("auto_map", "backbone", "use_pretrained_backbone", "use_timm_backbone")  # would fetch code or weights


def load_folder(folder: Path, kind: str, network: str, parts: Mapping[str, dict[str, str]]) -> tuple[Any, list[Any]]:
    """A network in eval mode and its other parts, each with its own options, from a local folder. Raises InputError."""
    try:
        import transformers
    except ImportError as error:
        raise InputError(EXTRA) from error
    remedy = f"put {SOURCES[kind]} there, as transformers' save_pretrained saves it"
    if missing := [name for name in FILES if not any(folder.glob(name))]:
        raise InputError(f"{folder}: no folder of {kind} (it has no {', no '.join(missing)}); {remedy}")
    try:
        config = read_json(folder / "config.json")
        found = config["model_type"]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{folder}/config.json: does not say what network it is of; {remedy}") from error
    if found != kind:
        raise InputError(f"{folder}: holds a network of type {found!r}, not {kind!r}; {remedy}")
    if elsewhere := [name for name in ELSEWHERE if config.get(name)]:
        raise InputError(f"{folder}/config.json: wants {elsewhere[0]} from elsewhere, which is not fetched; {remedy}")
    try:
        model, report = getattr(transformers, network).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        others = [
            getattr(transformers, name).from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **options
            )
            for name, options in parts.items()
        ]
    except Exception as error:  # of many kinds, for files that are damaged, missing or do not fit each other
        raise InputError(f"{folder}: {' '.join(str(error).split())[:200]}; {remedy}") from error
    # What is superfluous does no harm: older conversions hold tables that are now computed.
    if lacking := sorted(str(key) for key in report["missing_keys"]):
        raise InputError(f"{folder}: its weights lack {len(lacking)} of the network's: {lacking[0]} ...; {remedy}")
    return model.eval().requires_grad_(False), others
