"""Load a network of the `transformers` package (an optional extra) from a local folder; nothing is downloaded.

The folder contains what transformers' save_pretrained writes: config.json, safetensors, the processor's configuration
and the tokenizer's files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from utils.cli import InputError
from utils.files import read_json

MISSING_PACKAGE = "this method needs the transformers package: pip install -e .[grounding]"
REQUIRED_FILES = ("config.json", "*.safetensors", "*processor_config.json", "tokenizer_config.json")
SOURCES = {"clap": "laion/clap-htsat-unfused", "grounding-dino": "IDEA-Research/grounding-dino-base"}
DOWNLOADING_KEYS = ("auto_map", "backbone", "use_pretrained_backbone", "use_timm_backbone")  # of config.json


def load_folder(
    folder: Path, model_type: str, network: str, parts: Mapping[str, dict[str, str]]
) -> tuple[Any, list[Any]]:
    """Load a network and its processors.

    Args:
        folder: as save_pretrained writes it.
        model_type: "clap" or "grounding-dino", as in config.json.
        network: class of transformers.
        parts: classes of processors, with the options of their from_pretrained.

    Returns:
        The network in eval mode, and the processors in order.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit.
    """
    try:
        import transformers
    except ImportError as error:
        raise InputError(MISSING_PACKAGE) from error
    remedy = f"save {SOURCES[model_type]} there by transformers' save_pretrained"
    if missing := [name for name in REQUIRED_FILES if not any(folder.glob(name))]:
        raise InputError(f"{folder}: not a {model_type} folder (missing {', '.join(missing)}); {remedy}")
    try:
        config = read_json(folder / "config.json")
        found = config["model_type"]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{folder}/config.json: states no model_type; {remedy}") from error
    if found != model_type:
        raise InputError(f"{folder}: contains a model of type {found!r}, not {model_type!r}; {remedy}")
    if downloading := [name for name in DOWNLOADING_KEYS if config.get(name)]:
        raise InputError(f"{folder}/config.json: {downloading[0]} would be downloaded, which is not done; {remedy}")
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
    except Exception as error:  # of many types, for files that are damaged, missing or do not fit each other
        raise InputError(f"{folder}: {' '.join(str(error).split())[:200]}; {remedy}") from error
    # Unexpected keys are allowed: older conversions contain tables that are now computed.
    if missing_keys := sorted(str(key) for key in report["missing_keys"]):
        raise InputError(f"{folder}: {len(missing_keys)} weights are missing: {missing_keys[0]} ...; {remedy}")
    return model.eval().requires_grad_(False), others
