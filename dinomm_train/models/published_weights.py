"""The weights released with DINO-MM (arXiv:2204.05381), as their file holds them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bigearth_prep.bands import S1_BANDS, S2_BANDS
from dinomm_train.config import ModelConfig
from dinomm_train.errors import TrainError
from dinomm_train.models.frozen import ExpectedInput, FrozenBackbone, freeze

ARCHITECTURE = ModelConfig(
    name="vit_small_patch8_224", drop_path=0.0, table_px=224, table_resampling="published"
)

EXPECTS = ExpectedInput(
    channels=tuple(band.name for band in (*S2_BANDS, *S1_BANDS)),
    units={"s2": "reflectance x 10000", "s1": "dB"},
    dtypes={"s2": "uint8", "s1": "uint8"},
    scheme="paper",
    parameters={},
    crop_px=112,
    antialias=False,
    fill=0.0,
)
"""The published form: 8-bit, optical bands first, missing sensors zero."""

_WRAPPER_PREFIX = "module."
_BACKBONE_PREFIX = "backbone."
_HEAD_PREFIX = "head."


def has_published_layout(state: object) -> bool:
    """Whether an unpickled file is laid out as the release, without a format of ours."""
    return (
        isinstance(state, dict) and isinstance(state.get("teacher"), dict) and "format" not in state
    )


def read_published_weights(state: Mapping[str, Any], *, origin: str) -> FrozenBackbone:
    """The released teacher; its 28 x 28 position table is resampled as the published code does.

    Raises:
        TrainError: the weights are not those of a ViT-S/8 on 14 channels.
    """
    teacher = {name.removeprefix(_WRAPPER_PREFIX): one for name, one in state["teacher"].items()}
    weights: dict[str, Tensor] = {
        name.removeprefix(_BACKBONE_PREFIX): one
        for name, one in teacher.items()
        if not name.startswith(_HEAD_PREFIX)
    }
    stem = weights.get("patch_embed.proj.weight")
    if stem is not None and stem.shape[1] != len(EXPECTS.channels):
        raise TrainError(
            f"{origin} takes {stem.shape[1]} channels, the released DINO-MM weights take "
            f"{len(EXPECTS.channels)} ({','.join(EXPECTS.channels)}); it is another network"
        )
    return freeze(ARCHITECTURE, EXPECTS, weights, origin=origin)
