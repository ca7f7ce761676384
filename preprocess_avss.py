"""Preprocess the audio of AVSBench's semantic subset, AVSS, into 16 kHz audio and log-mel examples.

    python preprocess_avss.py --root avsbench_data/AVSBench-semantic [--fidelity published] [--jobs N] [--overwrite]

Reads metadata.csv and each clip's audio.wav below the root; writes audio_16k.wav and log_mel.npy beside it, and
avss_preprocess_report.csv. Frames and labels are used as they are. Clips that are complete are skipped, so running it
again resumes.
"""

if __name__ == "__main__":  # before slow imports
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence

from utils import preprocess
from utils.cli import cli_entry


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return preprocess.main("avss", argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
