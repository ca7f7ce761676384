"""The networks of the study. Public classes are imported when first asked for, so that a script which needs
one network does not wait for the libraries of the others."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.audioclip_segmentor import AudioCLIPSegmentor
    from models.avsegformer import AVSegFormer
    from models.tpavi_segmentor import TPAVISegmentor

__all__ = ["AVSegFormer", "AudioCLIPSegmentor", "TPAVISegmentor"]

_MODULES = {
    "AVSegFormer": "models.avsegformer",
    "AudioCLIPSegmentor": "models.audioclip_segmentor",
    "TPAVISegmentor": "models.tpavi_segmentor",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'models' has no attribute '{name}'")
