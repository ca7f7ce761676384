"""What a run is scored by: M_J and M_F of masks in S4 and MS3, mean IoU and F of classes in AVSS."""

from torch import Tensor

from supervised.losses import resize_logits
from utils.fidelity import Fidelity
from utils.layout import Benchmark, Clip
from utils.metrics import Metrics
from utils.semantic import SemanticMetrics
from utils.words import counted

AnyMetrics = Metrics | SemanticMetrics


def new_metrics(benchmark: Benchmark) -> AnyMetrics:
    """The metrics of a benchmark, without any clip."""
    return Metrics() if benchmark.classes == 1 else SemanticMetrics(benchmark.classes)


def validation_measures(benchmark: Benchmark, fidelity: Fidelity) -> tuple[str, str]:
    """The two metrics of the val split that a training run logs; the best model has the highest first one.

    Of AVSS's rules, fidelity published has the original's and corrected the recommended one (utils.semantic).
    """
    if benchmark.classes == 1:
        return "m_j", "m_f"
    rule = "published" if fidelity == "published" else "truth"
    return f"miou_{rule}", f"f_{rule}"


def add_clip(
    metrics: AnyMetrics, benchmark: Benchmark, index: int, clip: Clip, logits: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor]:
    """Score the labeled frames of a clip.

    Args:
        metrics: of the benchmark.
        benchmark: which one.
        index: of the clip in its split.
        clip: the clip.
        logits: (T, h, w), or (T, classes, h, w) in AVSS, where T is the length of a padded clip.
        truth: masks (M, H, W), or labels (T, H, W) of classes.

    Returns:
        What is shown of the clip, on the CPU: logits (M, H, W) and masks, or predicted and labeled classes of the
        labeled frames.
    """
    if not isinstance(metrics, SemanticMetrics):
        logits = resize_logits(logits[None].float(), truth[None])[0].cpu()
        metrics.add(index, logits, truth)
        return logits, truth
    labeled, length = benchmark.num_labeled(clip), benchmark.max_seconds
    labels = truth[:labeled]
    predicted = resize_logits(logits[:labeled].float(), labels).argmax(1).cpu()
    metrics.add_clip(index, predicted, labels, labeled + length - benchmark.num_frames(clip))
    return predicted, labels


def result(metrics: AnyMetrics, metric_batch: int) -> dict[str, float | int]:
    """The metrics of all clips, under their names in metrics.json; `metric_batch` concerns M_F only."""
    return metrics.result() if isinstance(metrics, SemanticMetrics) else metrics.result(metric_batch)


def format_result(numbers: dict[str, float | int]) -> str:
    """The metrics of AVSS in one line, for the end of a run."""
    rules = ("truth", "real", "published")
    listed = ", ".join(f"{rule} {numbers[f'miou_{rule}']:.4f} / {numbers[f'f_{rule}']:.4f}" for rule in rules)
    clips = counted(int(numbers["videos"]), "clip")
    return f"{clips}: mIoU / F by rule: {listed}; pooled mIoU {numbers['miou_pooled']:.4f}"
