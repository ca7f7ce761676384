"""The 71 classes of AVSS and their colors.

The order is that of AVSBench's `label2idx.json`: background, then the other names in alphabetical order. The colors are
those of PASCAL-VOC's palette. Source: AVSBench, `avs_scripts/avss/color_dataloader.py`.
"""

from functools import lru_cache

import cv2
import numpy as np

_NAMES = """
    background accordion airplane axe baby bassoon bell bird boat boy bus car cat cello clarinet clipper clock dog
    donkey drum duck elephant emergency-car erhu flute frying-food girl goose guitar gun guzheng hair-dryer handpan
    harmonica harp helicopter hen horse keyboard leopard lion man marimba missile-rocket motorcycle mower parrot
    piano pig pipa saw saxophone sheep sitar sorna squirrel tabla tank tiger tractor train trombone truck trumpet
    tuba ukulele utv vacuum-cleaner violin wolf woman
"""
CLASSES = tuple(_NAMES.split())
# The class of each category of S4 that is not one of the names above, nor "playing_" and one of them.
S4_CLASSES = {
    "ambulance_siren": "emergency-car",
    "baby_laughter": "baby",
    "cap_gun_shooting": "gun",
    "cat_meowing": "cat",
    "chainsawing_trees": "saw",
    "coyote_howling": "wolf",
    "dog_barking": "dog",
    "driving_buses": "bus",
    "female_singing": "woman",
    "horse_clip-clop": "horse",
    "lawn_mowing": "mower",
    "lions_roaring": "lion",
    "male_speech": "man",
    "mynah_bird_singing": "bird",
    "playing_glockenspiel": "marimba",
    "race_car": "car",
    "typing_on_computer_keyboard": "keyboard",
}
# Values of the column a_obj that are not classes: a typing error, and two for clips whose sounding object is not seen.
NOT_CLASSES = {"h orse": "horse", "off-the-screen": "", "background": ""}


def _palette(classes: int) -> np.ndarray:
    """Three bits of the class at a time, from the lowest, go to the bits 7, 6, ... of red, green and blue."""
    colors = np.zeros((classes, 3), np.uint8)
    for index in range(classes):
        for triple in range(3):
            for channel in range(3):
                colors[index, channel] |= (index >> (3 * triple + channel) & 1) << (7 - triple)
    return colors


PALETTE = _palette(len(CLASSES))  # (71, 3) uint8 RGB


def parse_objects(text: str) -> tuple[list[str], list[str]]:
    """Split a value of the column a_obj, class names joined by "_", which no name contains.

    Returns:
        The classes that it names, without the background, and the names that are no class. What AVSBench writes for
        objects out of view names none, and its typing error names the class that is meant.
    """
    names = [NOT_CLASSES.get(name, name) for name in text.split("_")]
    known = set(CLASSES[1:])
    return [name for name in names if name in known], [name for name in names if name and name not in known]


def class_of(category: str) -> str | None:
    """The class of a category of S4, or of a name that is a class already; None for others."""
    name = S4_CLASSES.get(category, category.removeprefix("playing_"))
    return name if name in CLASSES[1:] else None


def decode(rgb: np.ndarray) -> np.ndarray:
    """The class of each pixel of a colored label: (H, W, 3) uint8 to (H, W) uint8.

    Other colors than those of the palette become 0, the background, as in AVSBench; `unknown_pixels` finds them.
    """
    classes, known = _match(rgb)
    return classes * known


def unknown_pixels(rgb: np.ndarray) -> np.ndarray:
    """The pixels (H, W) bool of a colored label (H, W, 3) uint8 whose color is not in the palette."""
    return ~_match(rgb)[1]


def _match(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class that the high bits of each color spell, and whether the color is that class's."""
    bits: np.ndarray = cv2.LUT(np.ascontiguousarray(rgb), _bit_table())
    classes = bits[..., 0] | bits[..., 1] | bits[..., 2]
    colors = np.zeros((1, 256, 3), np.uint8)
    colors[0, : len(PALETTE)] = PALETTE
    same = cv2.LUT(cv2.merge([classes] * 3), colors) == rgb
    return classes, (classes < len(PALETTE)) & same[..., 0] & same[..., 1] & same[..., 2]


@lru_cache(maxsize=1)
def _bit_table() -> np.ndarray:
    """What each byte of each channel adds to the class: uint8 (1, 256, 3)."""
    values = np.arange(256)
    triples = [(values >> 7 - triple & 1) << 3 * triple for triple in range(3)]
    return (np.sum(triples, 0)[None, :, None] << np.arange(3)).astype(np.uint8)
