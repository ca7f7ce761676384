"""Loading of the public checkpoints into whole networks, or into towers of AudioCLIP.

| file                                    | into                    | by                                       |
|-----------------------------------------|-------------------------|------------------------------------------|
| AudioCLIP-{Full,Partial}-Training.pt    | AudioCLIP               | load_audioclip                           |
| the same, or CLIP.pt                    | AudioCLIP's image tower | load_visual                              |
| resnet50-19c8e357.pth                   | AudioCLIP's image tower | load_visual; stem, attnpool stay random  |
| AudioCLIP-{Full,Partial}-Training.pt    | AudioCLIP's audio tower | load_audio                               |
| ESRNXFBSP.pt                            | AudioCLIP's audio tower | load_audio; fc stays random              |
| resnet50-19c8e357.pth, pvt_v2_b5.pth    | models.backbones        | models.backbones.load_imagenet           |
| vggish-10086976.pth                     | models.vggish           | load_checkpoint; the keys are equal      |

The original loads all of these with strict=False and distinguishes the sources by words in their paths. Here the
content decides, and everything but the parts that the table leaves random must fit. Every loader returns the keys that
keep random weights, and raises RuntimeError naming missing, unexpected and misshapen keys before it changes anything.
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
    """The state dict of one tower ("visual" or "audio") in a state dict of AudioCLIP or CLIP."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def resnet_stages(state: State) -> dict[str, Tensor]:
    """The keys of torchvision's ResNet that CLIP's has, too: layer1 ... layer4.

    CLIP halves the resolution by pooling where torchvision uses a stride, so equal weights do not give equal maps.
    """
    return {key: value for key, value in state.items() if not key.startswith(("conv1.", "bn1.", "fc."))}


def esresnext_audio(state: State) -> dict[str, Tensor]:
    """The keys of ESResNeXt-FBSP without the prefix `audio.` and the classifier of 527 AudioSet classes.

    The classifier is `fc`; `fbsp.fc`, the center frequencies of the filters, is kept.
    """
    bare = {key.removeprefix("audio."): value for key, value in state.items()}
    return {key: value for key, value in bare.items() if key not in ("fc.weight", "fc.bias")}


def load_audioclip(model: AudioCLIP, state: State) -> list[str]:
    """Load a whole AudioCLIP: all 861 entries, or all but the text tower's into a model without one.

    Returns:
        An empty list, because nothing stays random.
    """
    if not model.has_text:
        state = {key: value for key, value in state.items() if not key.startswith(TEXT)}
    return load_strict(model, state)


def load_visual(visual: nn.Module, state: State) -> list[str]:
    """Load the image tower from AudioCLIP's or CLIP's weights (whole), or from torchvision's ResNet-50.

    From ResNet-50 the stem and the attention pool stay random: 24 entries, in addition to three num_batches_tracked.
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
