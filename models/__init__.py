"""The networks of the study, and the register of their checkpoints.

Names are imported when they are first used, so that a script that needs one network does not wait for the libraries of
the others.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.audioclip_segmentor import AudioCLIPSegmentor
    from models.avsegformer import AVSegFormer
    from models.registry import create_model, list_models, list_weights
    from models.tpavi_segmentor import TPAVISegmentor

__all__ = ["AVSegFormer", "AudioCLIPSegmentor", "TPAVISegmentor", "create_model", "list_models", "list_weights"]

_MODULES = {
    "AVSegFormer": "models.avsegformer",
    "AudioCLIPSegmentor": "models.audioclip_segmentor",
    "TPAVISegmentor": "models.tpavi_segmentor",
    "create_model": "models.registry",
    "list_models": "models.registry",
    "list_weights": "models.registry",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'models' has no attribute '{name}'")
