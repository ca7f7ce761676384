"""The inputs of tests/golden/raw_audio.npz, and the program that made it: moviepy 1.0.3 with ffmpeg 4.2.2.

    pip install moviepy==1.0.3 "imageio<2.28" imageio-ffmpeg==0.4.5 "numpy<2" "pillow<10" soundfile av   # elsewhere
    python -m tests.helpers.golden_audio_track

`positions NAME` are the decoded samples that each sample of the wav was taken from, `wav NAME` every third sample of
the wav itself, one channel where both are equal; `error NAME` marks what moviepy fails on.
"""

import tempfile
from pathlib import Path

import numpy as np

from tests.helpers.videos import chirps, numbered, pcm_video

FIGURES = Path(__file__).parents[1] / "golden" / "raw_audio.npz"
AAC = Path(__file__).parents[1] / "golden" / "raw_audio_aac.mp4"  # mono, 48 kHz, .5 s

# Seconds of sound at 44.1 kHz, and of picture.
LENGTHS = {
    "as long": (5.0, 5.0),
    "4.2 of 5": (4.2, 5.0),
    "3 of 5": (3.0, 5.0),
    "2.3 of 5": (2.3, 5.0),  # just enough for moviepy
    "2.2 of 5": (2.2, 5.0),  # less than half of its buffer
    "1 of 5": (1.0, 5.0),
    "2": (2.0, 2.0),
    "5.24 over 5.1": (5.237, 5.1),
    "10": (10.0, 10.0),
    "3.3 of 10": (3.3, 10.0),
}
# Rate, channels, layout, codec; half a second of `chirps`.
KINDS = {
    "mono 44.1": (44_100, 1, "mono", "pcm_s16le"),
    "stereo 44.1": (44_100, 2, "stereo", "pcm_s16le"),
    "mono 48": (48_000, 1, "mono", "pcm_s16le"),
    "stereo 48": (48_000, 2, "stereo", "pcm_s16le"),
    "stereo 48, 24 bits": (48_000, 2, "stereo", "pcm_s24le"),
    "mono 48, floats": (48_000, 1, "mono", "pcm_f32le"),
    "mono 22.05": (22_050, 1, "mono", "pcm_s16le"),
    "stereo 16": (16_000, 2, "stereo", "pcm_s16le"),
    "mono 8, 8 bits": (8_000, 1, "mono", "pcm_u8"),
    "5.1, 48": (48_000, 6, "5.1", "pcm_s16le"),
}


def length_video(folder: Path, name: str) -> Path:
    """One of LENGTHS, whose samples tell their place."""
    sound, picture = LENGTHS[name]
    return pcm_video(folder / "length.mkv", numbered(round(44_100 * sound)), 44_100, picture)


def kind_video(folder: Path, name: str) -> Path:
    """One of KINDS."""
    rate, channels, layout, codec = KINDS[name]
    return pcm_video(folder / "kind.mov", chirps(rate // 2, channels), rate, 0.5, codec, layout)


def places(samples: np.ndarray) -> np.ndarray:
    """What `numbered` samples tell."""
    return samples[:, 0].astype(np.int64) + 16_384 * samples[:, 1].astype(np.int64)


def thinned(samples: np.ndarray) -> np.ndarray:
    """Every third sample, of one channel where both are equal."""
    same = (samples[:, 0] == samples[:, 1]).all()
    return samples[::3, :1] if same else samples[::3]


def main() -> None:
    """Make the figures anew."""
    import soundfile
    from moviepy.editor import VideoFileClip  # type: ignore[import-not-found]

    figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def original(path: Path) -> np.ndarray:
            VideoFileClip(str(path)).audio.write_audiofile(str(folder / "out.wav"), fps=16000, logger=None)
            return soundfile.read(folder / "out.wav", dtype="int16")[0]

        for name in LENGTHS:
            try:
                steps = np.diff(places(original(length_video(folder, name))), prepend=0)
                figures[f"positions {name}"] = steps.astype(np.int32)
            except IndexError:
                figures[f"error {name}"] = np.zeros(0)
        for name in KINDS:
            figures[f"wav {name}"] = thinned(original(kind_video(folder, name)))
        figures["wav aac"] = thinned(original(AAC))
    np.savez_compressed(FIGURES, **figures)


if __name__ == "__main__":
    main()
