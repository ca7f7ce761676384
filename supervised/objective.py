"""The loss that a run minimizes: of masks or of classes, of every segmentor, in as many processes as there are."""

from accelerate import Accelerator
from torch import Tensor, nn

from models.avsegformer import MaskPrediction
from supervised.avsegformer_losses import MixLoss, mask_loss, semantic_mask_loss
from supervised.distributed import loss_scale
from supervised.losses import LossTerms, segmentation_loss, semantic_segmentation_loss
from supervised.options import Options
from utils.layout import BENCHMARKS, Clip


class Objective:
    """The loss of a batch by a run's options.

    Args:
        options: of the run.
        accelerator: of this process.

    Attributes:
        names: of the losses, in the order of their fields; the first is their total.
    """

    def __init__(self, options: Options, accelerator: Accelerator):
        self.options, self.accelerator = options, accelerator
        self.benchmark = BENCHMARKS[options.data.benchmark]
        entropy = "bce" if self.benchmark.classes == 1 else "cross_entropy"
        self.names = ("loss", "main", "mix") if options.model.segmentor == "avsegformer" else ("loss", entropy, "avm")

    def __call__(
        self, model: nn.Module, items: dict[str, Tensor], batch: list[Clip]
    ) -> tuple[LossTerms | MixLoss, float]:
        """Run the model and compute its loss.

        Args:
            model: an AVSModel, as it is wrapped for training.
            items: the part of the batch of this process.
            batch: the clips of the whole batch.

        Returns:
            The loss of this part, and the factor that makes it a part of the whole batch's.
        """
        return (self._of_masks if self.benchmark.classes == 1 else self._of_classes)(model, items, batch)

    def _of_masks(
        self, model: nn.Module, items: dict[str, Tensor], batch: list[Clip]
    ) -> tuple[LossTerms | MixLoss, float]:
        local, num_labeled = items["masks"].shape[:2]
        with self.accelerator.autocast():
            output = model(items, num_labeled if self.options.loss.distance == "none" else None)
        loss: LossTerms | MixLoss
        if isinstance(output, MaskPrediction):
            loss = mask_loss(output, items["masks"], self.options.model.avsegformer.loss)
        else:
            loss = segmentation_loss(output, items["masks"], self.options.loss, max(len(batch), local))
        return loss, loss_scale(local, len(batch), self.accelerator.num_processes)

    def _of_classes(
        self, model: nn.Module, items: dict[str, Tensor], batch: list[Clip]
    ) -> tuple[LossTerms | MixLoss, float]:
        """The mean is over the labeled frames of the whole batch."""
        options, labels, labeled = self.options, items["labels"], items["labeled"]
        # AVM-VV compares the foregrounds of all frames.
        decoded = items["valid"] if options.loss.avm_vv and options.loss.distance != "none" else labeled
        with self.accelerator.autocast():
            output = model(items, decoded=decoded)
        split = self.accelerator.num_processes if len(labels) < len(batch) else 1
        total = sum(map(self.benchmark.num_labeled, batch)) / split
        if isinstance(output, MaskPrediction):
            return semantic_mask_loss(output, labels, labeled, total), 1.0
        loss = semantic_segmentation_loss(
            output, labels, labeled, options.loss, options.fidelity, total, valid=items["valid"]
        )
        return loss, 1.0
