"""VGGish: log-mel examples → 128-d audio features, after the final ReLU.

The front end, log_mel, is utils.audio's (NumPy only).
Source: Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (ICASSP 2017), as ported in
AVSBench's `torchvggish`.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from utils.audio import EXAMPLE_FRAMES, MEL_BANDS, log_mel

__all__ = ["VGGish", "log_mel"]


class VGGish(nn.Module):
    """VGGish with the 18 state-dict keys of `vggish-10086976.pth`.

    The defaults are the public network (72 M parameters).

    Args:
        widths: channels of the four resolution levels.
        hidden: width of the two hidden layers.
        features: length of the output.
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 256, 512), hidden: int = 4096, features: int = 128):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, repeats in zip(widths, (1, 1, 2, 2), strict=True):
            for _ in range(repeats):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        flat = (EXAMPLE_FRAMES // 16) * (MEL_BANDS // 16) * channels
        self.embeddings = nn.Sequential(
            nn.Linear(flat, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, features),
            nn.ReLU(inplace=True),
        )
        self.output_size = features

    def forward(self, examples: Tensor) -> Tensor:
        """Audio features (N, features), non-negative, of log-mel spectrograms (N, 1, 96 frames, 64 mel bands)."""
        maps = self.features(examples)
        # The public weights expect TensorFlow's order: time, mel, channel.
        return self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
