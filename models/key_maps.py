"""What the study makes of each public checkpoint: whole networks, or towers of AudioCLIP from other sources.

| file                                    | into                    | by                                       |
|-----------------------------------------|-------------------------|------------------------------------------|
| AudioCLIP-{Full,Partial}-Training.pt    | AudioCLIP               | load_audioclip                           |
| the same, or CLIP.pt                    | AudioCLIP's image tower | load_visual                              |
| resnet50-19c8e357.pth                   | AudioCLIP's image tower | load_visual; stem, attnpool stay random  |
| AudioCLIP-{Full,Partial}-Training.pt    | AudioCLIP's audio tower | load_audio                               |
| ESRNXFBSP.pt                            | AudioCLIP's audio tower | load_audio; fc stays random              |
| resnet50-19c8e357.pth, pvt_v2_b5.pth    | models.backbones        | models.backbones.load_imagenet           |
| vggish-10086976.pth                     | models.vggish           | load_checkpoint; the names are ours      |

The original loads all of these with strict=False and tells the sources apart by words in their paths. Here the
content tells, everything but what the table leaves random must fit, and every loader returns the names of what
stayed random. All raise RuntimeError naming missing, unexpected and misshapen keys and then change nothing.
Source: SAM4AVS (BMVC 2023), the ablation of initial weights.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.audioclip import AudioCLIP
from models.checkpoints import load_strict

State = Mapping[str, Tensor]

TEXT = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
# CLIP's stem is three 3x3 convolutions where torchvision has one of 7x7, and it pools by attention.
STEM = ("conv1.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.")
ATTENTION_POOL = ("attnpool.",)


def tower_state(state: State, name: str) -> dict[str, Tensor]:
    """One tower ("visual" or "audio") of an AudioCLIP's or a CLIP's state dict, in the tower's own names."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def resnet_stages(state: State) -> dict[str, Tensor]:
    """torchvision's ResNet without its stem and classifier: layer1 ... layer4, whose names CLIP shares.

    CLIP halves the resolution by pooling where torchvision uses a stride, so equal weights do not mean equal maps.
    """
    return {key: value for key, value in state.items() if not key.startswith(("conv1.", "bn1.", "fc."))}


def esresnext_audio(state: State) -> dict[str, Tensor]:
    """ESResNeXt-FBSP without its classifier of 527 AudioSet classes; `audio.` before the names is taken off.

    The classifier is `fc`; `fbsp.fc`, the centre frequencies of the filters, is kept.
    """
    bare = {key.removeprefix("audio."): value for key, value in state.items()}
    return {key: value for key, value in bare.items() if key not in ("fc.weight", "fc.bias")}


def load_audioclip(model: AudioCLIP, state: State) -> list[str]:
    """Load a whole AudioCLIP: all 861 entries, or all but the text tower's into a model without one.

    Nothing stays random: the list returned is empty.
    """
    if not model.has_text:
        state = {key: value for key, value in state.items() if not key.startswith(TEXT)}
    return load_strict(model, state)


def load_visual(visual: nn.Module, state: State) -> list[str]:
    """Load the image tower from AudioCLIP's or CLIP's weights (whole), or from torchvision's ResNet-50.

    From ResNet-50 the stem and the attention pool stay random: 24 entries, beside the stem's three counters.
    """
    if clip := tower_state(state, "visual"):
        return load_strict(visual, clip, counters=False)
    return load_strict(visual, resnet_stages(state), random=(*STEM, *ATTENTION_POOL), counters=False)


def load_audio(audio: nn.Module, state: State) -> list[str]:
    """Load the audio tower from AudioCLIP's weights (whole), or from ESRNXFBSP.pt.

    From ESRNXFBSP.pt `fc.weight` and `fc.bias` stay random; the study trains them with the head.
    """
    if tower_state(state, "visual"):  # ESRNXFBSP.pt, whose names may begin with "audio." as well, has no such tower
        return load_strict(audio, tower_state(state, "audio"), counters=False)
    return load_strict(audio, esresnext_audio(state), random=("fc.",), counters=False)
