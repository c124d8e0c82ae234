"""What a backbone knows beside its CLS feature: tokens of its last blocks, and their attention."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from dinomm_train.models.backbone import Backbone, resample_table_as_published


def last_tokens(
    backbone: Backbone, crops: Float[Tensor, "crop channel side side"], *, blocks: int
) -> tuple[Float[Tensor, "crop token feature"], ...]:
    """The tokens after each of the last blocks, normalized as the network's output is.

    All blocks where the network has fewer. Of each crop the CLS token is first, then the network's
    register tokens if any, then patches row by row.
    """
    depth = len(backbone.vit.blocks)
    module = _BlockTokens(backbone.vit, list(range(max(0, depth - blocks), depth)))
    weights: dict[str, Tensor] = {}
    if backbone.table_resampling == "published":
        assert backbone.vit.pos_embed is not None
        side = crops.shape[-1] // backbone.patch_px
        # timm takes a table that has the crop's grid already as it is.
        table = resample_table_as_published(backbone.vit.pos_embed, (side, side))
        weights["vit.pos_embed"] = table
    pairs = functional_call(module, weights, (crops,))
    return tuple(torch.cat([prefix, patches], dim=1) for patches, prefix in pairs)


def last_attention(
    backbone: Backbone, crops: Float[Tensor, "crop channel side side"]
) -> Float[Tensor, "crop head row column"]:
    """How the CLS token of the last block spreads its attention over the patches, head by head.

    What goes to the CLS token itself and to registers is left out, so a map sums to less than one.
    """
    vit = backbone.vit
    tokens = _entering_last_block(backbone, crops)
    block = vit.blocks[-1]
    attention: Any = block.attn
    count, length, _ = tokens.shape
    shape = (count, length, 3, attention.num_heads, attention.head_dim)
    norm: Any = block.norm1
    query, key, _ = attention.qkv(norm(tokens)).reshape(shape).permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    weights = torch.softmax(query @ key.transpose(-1, -2) * attention.scale, dim=-1)
    side = crops.shape[-1] // backbone.patch_px
    patches: Tensor = weights[:, :, 0, vit.num_prefix_tokens :]
    return patches.reshape(count, -1, side, side)


def _entering_last_block(backbone: Backbone, crops: Tensor) -> Tensor:
    entering: list[Tensor] = []
    hook = backbone.vit.blocks[-1].register_forward_pre_hook(
        lambda _, inputs: entering.append(inputs[0])
    )
    with hook:
        last_tokens(backbone, crops, blocks=1)
    return entering[0]


class _BlockTokens(nn.Module):
    def __init__(self, vit: VisionTransformer, blocks: list[int]) -> None:
        super().__init__()
        self.vit = vit
        self.blocks = blocks

    def forward(self, crops: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Patch tokens and prefix tokens after each block."""
        pairs: Any = self.vit.forward_intermediates(
            crops,
            indices=self.blocks,
            return_prefix_tokens=True,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return list(pairs)
