"""The ImageNet backbones with the classifiers of their files, which the segmentors drop."""

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from models.backbones import build_backbone, load_imagenet
from models.checkpoints import load_checkpoint, read_state_dict
from pretrained.checks import Context, Outputs
from pretrained.checks.images import ImageNetVal, squeezed_input
from utils.cli import InputError

RESNET50, PVT_V2_B5 = "resnet50", "pvt_v2_b5"


class Classifier:
    """A backbone of this project with the classifier of its file, in eval mode.

    Args:
        context: names the file.
        backbone: of models.backbones.
        head: name of the classifier in the file.

    Raises:
        InputError: if the file does not fit or has no classifier.
    """

    def __init__(self, context: Context, backbone: str, head: str) -> None:
        self.device, path = context.device, context.weights
        self.backbone = build_backbone(backbone).eval()
        load_checkpoint(self.backbone, path, lambda state: load_imagenet(self.backbone, state))
        self.backbone.to(self.device)
        state = read_state_dict(path)
        if f"{head}.weight" not in state or f"{head}.bias" not in state:
            raise InputError(f"{path}: has no classifier ({head}.weight, {head}.bias), which this check needs")
        self.weight, self.bias = (state[f"{head}.{name}"].to(self.device) for name in ("weight", "bias"))

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W)."""
        last: Tensor = self.backbone(images.to(self.device))[-1]
        return F.linear(last.mean(dim=(2, 3)), self.weight, self.bias)


def resnet50_imagenet(context: Context) -> Outputs:
    """Accuracy on ImageNet's validation pictures, in per cent."""
    classify = Classifier(context, RESNET50, "fc")
    options = {"side": 256, "resample": Image.Resampling.BILINEAR, "statistics": "imagenet"}
    data = ImageNetVal(context.inputs.path("imagenet-val"), context.parameters["pictures"], **options)
    right = torch.zeros(2)
    for images, labels in data.batches():
        hits = classify(images).topk(5).indices.cpu() == labels[:, None]
        right += torch.stack([hits[:, 0].sum(), hits.any(1).sum()])
    top1, top5 = (100 * right / len(data)).tolist()
    return {"top1": top1, "top5": top5}


def pvt_logits(context: Context) -> Outputs:
    """The first three logits of a picture."""
    (path,) = context.paths().values()
    return {"logits": Classifier(context, PVT_V2_B5, "head")(squeezed_input(path)[None])[0, :3].tolist()}
