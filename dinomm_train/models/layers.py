"""What a backbone knows beside its CLS feature: tokens of its last blocks, and their attention."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dinomm_train.models.backbone import Backbone


def last_tokens(
    backbone: Backbone, crops: Float[Tensor, "crop channel side side"], *, blocks: int
) -> tuple[Float[Tensor, "crop token feature"], ...]:
    """The tokens after each of the last blocks, normalized as the network's output is.

    All blocks where the network has fewer. Of each crop the CLS token is first, then the network's
    register tokens if any, then patches row by row.
    """
    vit = backbone.vit
    tokens = backbone.embed(crops)
    after = []
    for block in vit.blocks:
        tokens = block(tokens)
        after.append(tokens)
    return tuple(vit.norm(one) for one in after[-blocks:])


def last_attention(
    backbone: Backbone, crops: Float[Tensor, "crop channel side side"]
) -> Float[Tensor, "crop head row column"]:
    """How the CLS token of the last block spreads its attention over the patches, head by head.

    What goes to the CLS token itself and to registers is left out, so a map sums to less than one.
    """
    vit = backbone.vit
    tokens = backbone.embed(crops)
    *before, last = vit.blocks
    for block in before:
        tokens = block(tokens)
    norm: Any = last.norm1
    attention: Any = last.attn
    count, length, _ = tokens.shape
    shape = (count, length, 3, attention.num_heads, attention.head_dim)
    query, key, _ = attention.qkv(norm(tokens)).reshape(shape).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    weights = torch.softmax(query @ key.transpose(-1, -2) * attention.scale, dim=-1)
    side = crops.shape[-1] // backbone.patch_px
    patches: Tensor = weights[:, :, 0, vit.num_prefix_tokens :]
    return patches.reshape(count, -1, side, side)
