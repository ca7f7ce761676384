"""Damaged copies of whole files, the same for the same seed."""

from collections.abc import Iterator

import numpy as np

BOXES = (
    b"moov mdat mvhd trak tkhd mdia mdhd hdlr minf stbl stsd avc1 avcC mp4a esds stts ctts stsc stsz stco elst".split()
)
WORDS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)  # of 32 bits, of which much depends


def mutated(bases: dict[str, bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, each with a name that says what was done to which."""
    names = list(bases)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        data = bytearray(bases[name])
        how = ("bits", "head", "cut", "word", "box", "swap", "splice", "zeros", "insert")[int(rng.integers(9))]
        if how in ("bits", "head"):
            end = len(data) if how == "bits" else min(len(data), 1500)
            for at in rng.integers(0, end, int(rng.integers(1, 30))):
                data[at] ^= 1 << int(rng.integers(8))
        elif how == "cut":
            del data[int(rng.integers(len(data))) :]
        elif how == "word":
            _put_word(data, int(rng.integers(len(data))), rng)
        elif how == "box":  # a number shortly behind the name of a box, or before it: its size
            found = [at for box in BOXES if (at := data.find(box)) >= 0] or [int(rng.integers(len(data)))]
            _put_word(data, int(rng.choice(found)) + int(rng.integers(-1, 16)) * 4, rng)
        elif how == "swap":
            a, b = (int(at) for at in rng.integers(0, len(data), 2))
            size = int(rng.integers(1, 2000))
            data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
        elif how == "splice":
            other = bases[names[int(rng.integers(len(names)))]]
            data[int(rng.integers(len(data))) :] = other[int(rng.integers(len(other))) :]
        elif how == "zeros":
            at, size = int(rng.integers(len(data))), int(rng.integers(1, 4000))
            data[at : at + size] = bytes(len(data[at : at + size]))
        else:
            at = int(rng.integers(len(data)))
            data[at:at] = rng.bytes(int(rng.integers(1, 300)))
        yield f"{number}.{how}.{name}", bytes(data)


def _put_word(data: bytearray, at: int, rng: np.random.Generator) -> None:
    at = max(0, min(at, len(data) - 4))
    order = "big" if rng.random() < 0.7 else "little"
    data[at : at + 4] = int(rng.choice(WORDS)).to_bytes(4, order)  # type: ignore[arg-type]
