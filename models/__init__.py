"""The networks of the study. Public classes are imported when first asked for, so that a script which needs
one network does not wait for the libraries of the others."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.tpavi_segmentor import TPAVISegmentor

__all__ = ["TPAVISegmentor"]


def __getattr__(name: str) -> Any:
    if name == "TPAVISegmentor":
        from models.tpavi_segmentor import TPAVISegmentor

        return TPAVISegmentor
    raise AttributeError(f"module 'models' has no attribute '{name}'")
