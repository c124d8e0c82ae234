"""State dicts of plain vision transformers under timm's names, which say nothing of their input."""

import re
from collections.abc import Mapping

from torch import Tensor

from bigearth_prep.card import DatasetCard
from dinomm_train.config import ModelConfig, ViewConfig
from dinomm_train.errors import TrainError
from dinomm_train.models.frozen import FrozenBackbone, expected_input, freeze

_STEM = "patch_embed.proj.weight"
_NEEDED = (_STEM, "pos_embed", "cls_token", "blocks.0.attn.qkv.weight")
_HEAD = re.compile(r"^(head|head_dist)\.")
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_HEAD_WIDTH = 64
"""Features per attention head in every ViT of the usual sizes."""


def read_plain_weights(
    weights: Mapping[str, Tensor], card: DatasetCard | None, *, origin: str
) -> FrozenBackbone:
    """The network, taken at its word: it is given the dataset's bands as they are normalized there.

    A missing sensor is zero. The classifier, if there is one, is left out.

    Raises:
        TrainError: these are no plain ViT's weights, there is no dataset to take the input's
            meaning from, or the network takes another number of channels.
    """
    missing = [name for name in _NEEDED if name not in weights]
    if missing:
        raise TrainError(
            f"{origin} is not a plain vision transformer's: {missing[0]} is missing, it holds "
            f"{', '.join(list(weights)[:3]) or 'nothing'}; name a run, an export, the published "
            "weights, or a timm ViT's state dict"
        )
    if card is None:
        raise TrainError(
            f"{origin} does not say which bands it was trained on; load it with timm itself, or "
            "evaluate it on a dataset built with its bands and normalization"
        )
    _require_channels(weights[_STEM].shape[1], card, origin)
    kept = {name: one for name, one in weights.items() if not _HEAD.match(name)}
    views = ViewConfig()
    expects = expected_input(card, views)
    return freeze(_architecture(kept, origin), expects, kept, origin=f"{origin} (a plain ViT)")


def _require_channels(found: int, card: DatasetCard, origin: str) -> None:
    if found != len(card.channels):
        raise TrainError(
            f"{origin} takes {found} channels, the dataset holds {len(card.channels)} "
            f"({','.join(card.channels)}); build shards with --bands naming the {found} that it "
            "was trained on, in their order, normalized as they were"
        )


def _architecture(weights: Mapping[str, Tensor], origin: str) -> ModelConfig:
    """Dimensions as the shapes tell them; the number of heads follows from the width."""
    width, _, patch_px, _ = weights[_STEM].shape
    side = round((weights["pos_embed"].shape[1] - 1) ** 0.5)
    blocks = {int(match.group(1)) for name in weights if (match := _BLOCK.match(name))}
    if width % _HEAD_WIDTH:
        raise TrainError(
            f"{origin} has {width} features per token, which heads of {_HEAD_WIDTH} do not share; "
            "its number of heads cannot be told from its weights, export it with its architecture"
        )
    return ModelConfig(
        name="vit_small_patch8_224",
        patch_px=patch_px,
        depth=max(blocks) + 1,
        width=width,
        heads=width // _HEAD_WIDTH,
        drop_path=0.0,
        table_px=side * patch_px,
    )
