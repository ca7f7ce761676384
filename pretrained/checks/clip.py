"""CLIP's RN50, in the networks that this project has for it."""

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from models.audioclip import AudioCLIP
from models.checkpoints import load_checkpoint, load_strict
from models.key_maps import load_visual
from pretrained.checks import Context, Outputs
from pretrained.checks.images import ImageNetVal, clip_input
from utils.cli import progress_bar_options

NOT_IN_CLIP = ("audio.", "logit_scale_ai", "logit_scale_at")  # of AudioCLIP


def dog_embedding(context: Context) -> Outputs:
    """Cosine of a picture's embedding with the published one, and its norm."""
    model = AudioCLIP(text=False).eval()
    load_checkpoint(model.visual, context.weights, lambda state: load_visual(model.visual, state))
    (path,) = context.paths().values()
    embedding = model.to(context.device).encode_image(clip_input(path)[None].to(context.device))[0].double().cpu()
    published = torch.tensor(context.parameters["vector"], dtype=torch.float64)
    return {"cosine": F.cosine_similarity(embedding, published, dim=0).item(), "norm": embedding.norm().item()}


def imagenet_zero_shot(context: Context) -> Outputs:
    """Zero-shot accuracy on ImageNet's validation pictures."""
    model = AudioCLIP().eval()
    load_checkpoint(model, context.weights, lambda state: load_strict(model, state, random=NOT_IN_CLIP))
    model.to(context.device)
    options = {"side": 224, "resample": Image.Resampling.BICUBIC, "statistics": "clip"}
    data = ImageNetVal(context.inputs.path("imagenet-val"), context.parameters["pictures"], **options)
    classes, right = _class_embeddings(model), 0
    for images, labels in data.batches():
        scores = F.normalize(model.encode_image(images.to(context.device)), dim=1) @ classes.T
        right += int((scores.argmax(1).cpu() == labels).sum())
    return {"imagenet": right / len(data)}


def _class_embeddings(model: AudioCLIP) -> Tensor:
    """Normalized mean embeddings of open_clip's prompts for each class, (1000, D)."""
    import open_clip

    rows = []
    for name in tqdm(open_clip.IMAGENET_CLASSNAMES, desc="class names", **progress_bar_options()):
        texts = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
        rows.append(F.normalize(model.encode_text(texts), dim=1).mean(0))
    return F.normalize(torch.stack(rows), dim=1)
