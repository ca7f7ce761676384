"""Zero-shot audio-visual segmentation: AudioCLIP's similarity and Segment Anything, without training.

from zero_shot import load_pipeline
pipeline = load_pipeline("mini/s4_point_dense")
result = pipeline(frames, audio, sample_rate)       # result.masks, result.similarity_maps, result.prompts
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zero_shot.pipeline import Pipeline, PipelineResult, load_pipeline

__all__ = ["Pipeline", "PipelineResult", "load_pipeline"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported on first use, so that commands do not wait for it
        from zero_shot import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'zero_shot' has no attribute '{name}'")
