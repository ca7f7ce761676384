"""The options that `zero_shot.tune` searches: what each method has, the values to try, and the sets that differ."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.utils import shuffle

from utils.cli import InputError
from utils.config import resolve_options
from zero_shot.label_list import read_targets
from zero_shot.options import Options

MAX_SETS = 100_000  # of a search
DRAWS = 8  # for each set that is wanted, because draws may be equal up to options that they do not use

Values = dict[str, list[Any]]  # the values to try, by dotted name of the option
OptionSet = dict[str, Any]  # one value of each

THRESHOLDS = [round(value, 2) for value in np.arange(0.5, 1.0, 0.05).tolist()]
# At amplitude `unit` the published rows chose `reverse`; at `int16` nobody has chosen it with the public weights.
_AUDIO: Values = {"audioclip.amplitude": ["unit", "int16"]}
_MAP: Values = {
    "audioclip.reverse": [True, False],
    "audioclip.surgery": [True, False],
    "audioclip.noise": ["none", "rand", "gaussian", "zero"],
    "audioclip.interpolation": ["bilinear", "bicubic"],
}
_MAP_EXTRA: Values = {"audioclip.image_size": [224, 448], "audioclip.audio_repeats": [1, 5]}
_SELECTION: Values = {
    "retrieval.score": ["crop", "map"],
    "retrieval.rule": ["threshold", "top1"],
    "retrieval.threshold": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
    "retrieval.logit_scale": [10.0, 30.0, 100.0],
    "retrieval.max_area": [0.5, 0.75, 1.0],
}
_PROPOSALS: Values = {
    "proposals.points_per_side": [16, 32],
    "proposals.pred_iou_thresh": [0.8, 0.88],
    "proposals.stability_score_thresh": [0.9, 0.95],
    "proposals.stability_score_offset": [1.0],
    "proposals.box_nms_thresh": [0.7],
}
_THRESHOLD: Values = {"prompt.threshold": THRESHOLDS}
_POINTS: Values = {
    "prompt.points": ["global", "local", "dense"],
    "sam.multimask": [True, False],
    "sam.mask_selection": ["max_score", "max_area"],
}
_BOXES: Values = {"prompt.boxes": ["multi_box", "total_box", "single_maxscore", "single_maxarea"]}
_GROUNDING: Values = {
    "grounding.top_k": [1, 2, 3],
    "grounding.threshold": [0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5],
}

# What each method searches if nothing else is asked for.
DEFAULT_VALUES: dict[str, Values] = {
    "no_prompt": _AUDIO | _MAP | _SELECTION,
    "point": _AUDIO | _MAP | _POINTS | _THRESHOLD,
    "heatmap_box": _AUDIO | _MAP | _BOXES | _THRESHOLD,
    "heatmap": _AUDIO | _MAP | _THRESHOLD,
    "box_prompt": _GROUNDING,
    "concept_prompt": _GROUNDING | {"concept.min_confidence": [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7]},
}
# What it has besides. Each value of these makes the networks run again.
EXTRA_VALUES: dict[str, Values] = {
    "no_prompt": _MAP_EXTRA | _PROPOSALS | {"audioclip.crop_size": [224]},
    "point": _MAP_EXTRA,
    "heatmap_box": _MAP_EXTRA,
    "heatmap": _MAP_EXTRA,
    "concept_prompt": {"concept.min_presence": [0.3, 0.5, 0.7]},
}

# Options without effect under some values of others, in an order in which each can be decided.
_from_map = lambda o: o.method != "no_prompt" or o.retrieval.score == "map"  # noqa: E731
_thresholded = lambda o: o.retrieval.rule == "threshold"  # noqa: E731
USED: dict[str, Callable[[Options], bool]] = {
    **dict.fromkeys([*_MAP, "audioclip.image_size"], _from_map),
    "audioclip.crop_size": lambda o: o.retrieval.score == "crop",
    "retrieval.threshold": _thresholded,
    "retrieval.logit_scale": _thresholded,  # the most probable one is the same at any scale
    "prompt.threshold": lambda o: o.method != "point" or o.prompt.points != "global",
    "sam.mask_selection": lambda o: o.sam.multimask,
    "concept.min_presence": lambda o: o.concept.finder == "sam3",
}


def parse_values(words: Sequence[str], base: Options) -> Values:
    """The values to try.

    Args:
        words: each `OPTION=VALUE,VALUE,...`, or `OPTION` for its default values; none stands for the default options.
        base: the row's options.

    Raises:
        InputError: for an option that the method does not have, or a value that the option does not take.
    """
    method, defaults = base.method, DEFAULT_VALUES.get(base.method)
    if defaults is None:
        raise InputError(f"method {method} has no option to tune; choose a row of {', '.join(DEFAULT_VALUES)}")
    known, found = defaults | EXTRA_VALUES.get(method, {}), Values()
    if base.uses_encoder and base.encoder != "audioclip":  # which has neither AudioCLIP's options nor its maps
        known, defaults = ({n: v for n, v in each.items() if not _of_audioclip(n)} for each in (known, defaults))
    for labels in base.label_files():
        most = len(read_targets(labels))  # a short list has fewer labels than the default values
        numbers = [number for number in _GROUNDING["grounding.top_k"] if number <= most]
        known, defaults = ({**each, "grounding.top_k": numbers} for each in (known, defaults))
    for word in words:
        name, equals, texts = word.partition("=")
        if name not in known:
            raise InputError(f"--search {name}: method {method} does not have it; it has {', '.join(known)}")
        given = texts.split(",") if equals else []
        if equals and not all(given):
            raise InputError(f"--search {word}: give values as {name}=VALUE,VALUE")
        parsed = [get_option(resolve_options(Options, [f"--{name}={text}"]), name) for text in given]
        found[name] = list(dict.fromkeys(parsed)) or known[name]
    chosen = found if words else defaults
    # The row's own value is always among them.
    return {name: list(dict.fromkeys([*values, get_option(base, name)])) for name, values in chosen.items()}


def _of_audioclip(name: str) -> bool:
    """Whether an option is of AudioCLIP, or needs its similarity maps."""
    return name.startswith("audioclip.") or name == "retrieval.score"


def option_sets(values: Values, base: Options, budget: int, seed: int) -> list[OptionSet]:
    """The sets to evaluate, each once, the row's own first.

    Args:
        values: to try.
        base: the row's options.
        budget: how many sets to draw at random (with the row's own); 0 takes all.
        seed: of the draw.

    Returns:
        Sets that differ in an option that has an effect; options without one are the row's.

    Raises:
        InputError: for more sets than MAX_SETS.
    """
    total = int(np.prod([len(each) for each in values.values()], dtype=np.float64))
    if not budget and total > MAX_SETS:
        raise InputError(f"the grid has {total} sets; draw some of them with --budget N, or search fewer values")
    grid: Iterable[Mapping[str, Any]] = ParameterGrid(values)
    if budget:  # draws without repetition, whose order is not always random
        grid = shuffle(list(ParameterSampler(values, min(total, budget * DRAWS), random_state=seed)), random_state=seed)
    own = {name: get_option(base, name) for name in values}
    distinct = {tuple(own.items()): own}
    for drawn in grid:
        found = {name: drawn[name] for name in values}
        options = set_options(base, found)
        found = {name: value if USED.get(name, _always)(options) else own[name] for name, value in found.items()}
        distinct.setdefault(tuple(found.items()), found)
        if budget and len(distinct) >= budget:
            break
    return list(islice(distinct.values(), budget or None))


def _always(_: Options) -> bool:
    return True


def get_option(options: Any, name: str) -> Any:
    """The value of an option by its dotted name."""
    for part in name.split("."):
        options = getattr(options, part)
    return options


def set_options(options: Any, values: Mapping[str, Any]) -> Any:
    """A copy of options with other values, by dotted names."""
    for name, value in values.items():
        first, _, rest = name.partition(".")
        inner = getattr(options, first)
        options = replace(options, **{first: set_options(inner, {rest: value}) if is_dataclass(inner) else value})
    return options
