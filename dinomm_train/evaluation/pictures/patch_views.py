"""A patch as people see it: true colour of the optical bands, and a composite of the radar's."""

import textwrap

import numpy as np
from jaxtyping import Float32

from bigearth_prep.card import DatasetCard
from dinomm_train.data.inputs import InputScaling
from dinomm_train.data.stored_split import StoredSplit

_TRUE_COLOUR = ("B04", "B03", "B02")
_RADAR = ("VV", "VH")
_CAPTION_WIDTH = 110

_CUT_PERCENT = 2.0
"""Of the darkest and of the brightest pixels, which a stretch lets go."""


def true_colour(
    image: Float32[np.ndarray, "channel height width"], card: DatasetCard
) -> Float32[np.ndarray, "height width 3"] | None:
    """Red, green and blue in [0, 1], stretched together; None where a band is missing."""
    if not set(_TRUE_COLOUR) <= set(card.channels):
        return None
    physical = _physical(image, card)
    chosen = [physical[card.channels.index(name)] for name in _TRUE_COLOUR]
    return _stretched(np.stack(chosen, axis=-1))


def radar_colour(
    image: Float32[np.ndarray, "channel height width"], card: DatasetCard
) -> Float32[np.ndarray, "height width 3"] | None:
    """VV, VH and VV - VH (in dB) as colours in [0, 1], stretched one by one; None without radar."""
    if not set(_RADAR) <= set(card.channels):
        return None
    physical = _physical(image, card)
    vv, vh = (physical[card.channels.index(name)] for name in _RADAR)
    return np.stack([_stretched(one) for one in (vv, vh, vv - vh)], axis=-1)


def _physical(
    image: Float32[np.ndarray, "channel height width"], card: DatasetCard
) -> Float32[np.ndarray, "channel height width"]:
    scaling = InputScaling.of(card)
    per_input, at_zero = scaling.physical_per_input, scaling.physical_at_zero
    physical: Float32[np.ndarray, "channel height width"] = (
        image * per_input[:, None, None] + at_zero[:, None, None]
    )
    return physical


def _stretched(values: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    low, high = np.percentile(values, [_CUT_PERCENT, 100 - _CUT_PERCENT])
    shown: Float32[np.ndarray, ...] = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return shown.astype(np.float32)


def caption_of(split: StoredSplit, position: int) -> str:
    """A patch's labels, in lines short enough to stand above a row of pictures."""
    names = split.table["labels"][position].as_py()
    return textwrap.fill("; ".join(names), _CAPTION_WIDTH)
