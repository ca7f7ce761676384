"""Load a network of the `transformers` package (an optional extra) from a local folder; nothing is downloaded.

The folder contains what transformers' save_pretrained writes, and `pretrained.download` fetches: config.json,
safetensors, the processor's configuration and, for networks that read text, the tokenizer's files.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.weights import STAND_INS, STAND_INS_COMMAND, command_for, list_checkpoints
from utils.cli import InputError
from utils.files import read_json

MISSING_PACKAGE = "this method needs the transformers package: pip install -e .[grounding]"
REQUIRED_FILES = ("config.json", "*.safetensors", "*processor_config.json")
TOKENIZER_FILE = "tokenizer_config.json"
SOURCES = {  # a repository of the hub for each model_type
    "clap": "laion/clap-htsat-unfused",
    "grounding-dino": "IDEA-Research/grounding-dino-base",
    "mm-grounding-dino": "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det",
    "pe_audio": "facebook/pe-a-frame-small",
    "pe_audio_video": "facebook/pe-av-small",
    "sam3": "facebook/sam3",
    "sam2": "facebook/sam2.1-hiera-tiny",
    "edgetam": "yonigozlan/EdgeTAM-hf",
    "sam3_tracker": "facebook/sam3",
}
DOWNLOADING_KEYS = ("auto_map", "backbone", "use_pretrained_backbone", "use_timm_backbone")  # of config.json


def read_model_type(folder: Path, expected: str) -> str:
    """The model_type in the config.json of a folder.

    Args:
        folder: as save_pretrained writes it.
        expected: a key of SOURCES, for the message.

    Raises:
        InputError: if the folder or the entry is missing.
    """
    if not (folder / "config.json").is_file():
        raise InputError(_not_a_folder(folder, expected, ["config.json"]))
    try:
        return str(read_json(folder / "config.json")["model_type"])
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{folder}/config.json: states no model_type; {remedy(folder, expected)}") from error


def remedy(folder: Path, model_type: str) -> str:
    """How to obtain a folder, for messages."""
    if folder.parent.name == STAND_INS:
        return f"{STAND_INS_COMMAND} writes it"
    known = next((checkpoint for checkpoint in list_checkpoints() if checkpoint.file == folder.name), None)
    if known is None or not known.hub:  # what is registered without a repository is a file
        return f"it has to be a folder as of transformers' save_pretrained, such as of {SOURCES[model_type]}"
    return f"{'remove it, then ' if folder.exists() else ''}{command_for(folder)} gets it{known.if_gated}"


def _not_a_folder(folder: Path, model_type: str, missing: Sequence[str]) -> str:
    """The message for a folder that does not exist, or lacks files."""
    found = f"not a {model_type} folder (missing {', '.join(missing)})" if folder.exists() else "no such folder"
    return f"{folder}: {found}; {remedy(folder, model_type)}"


def load_folder(
    folder: Path,
    model_type: str,
    network: str | Callable[[Any], Any],
    parts: Mapping[str, dict[str, str]],
    other_types: Sequence[str] = (),
) -> tuple[Any, list[Any]]:
    """Load a network and its processors.

    Args:
        folder: as save_pretrained writes it.
        model_type: as in config.json, a key of SOURCES.
        network: class of transformers, or a function that makes one from the package.
        parts: classes of processors, with the options of their from_pretrained.
        other_types: further values of model_type that the class of the network reads.

    Returns:
        The network in eval mode, and the processors in order.

    Raises:
        InputError: if the package, the folder or a part of it is missing or does not fit.
    """
    try:
        import transformers
    except ImportError as error:
        raise InputError(MISSING_PACKAGE) from error
    hint = remedy(folder, model_type)
    required = [*REQUIRED_FILES, *([TOKENIZER_FILE] if any("Tokenizer" in name for name in parts) else [])]
    if missing := [name for name in required if not any(folder.glob(name))]:
        raise InputError(_not_a_folder(folder, model_type, missing))
    found = read_model_type(folder, model_type)
    if found not in (model_type, *other_types):
        raise InputError(f"{folder}: contains a model of type {found!r}, not {model_type!r}; {hint}")
    config = read_json(folder / "config.json")
    if downloading := [name for name in DOWNLOADING_KEYS if config.get(name)]:
        raise InputError(f"{folder}/config.json: {downloading[0]} would be downloaded, which is not done; {hint}")
    verbosity, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # it warns that an image network is read from a video network's folder
    transformers.logging.disable_progress_bar()
    try:
        network_class = getattr(transformers, network) if isinstance(network, str) else network(transformers)
        model, report = network_class.from_pretrained(
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
        raise InputError(f"{folder}: {' '.join(str(error).split())[:200]}; {hint}") from error
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
    # Unexpected keys are allowed: older conversions contain tables that are now computed.
    if missing_keys := sorted(str(key) for key in report["missing_keys"]):
        raise InputError(f"{folder}: weights are missing: {missing_keys[0]} ... ({len(missing_keys)} in all); {hint}")
    return model.eval().requires_grad_(False), others
