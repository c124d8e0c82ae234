"""The vision transformer that is pretrained: one of timm's, for any channel count and crop size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import timm
import torch
from jaxtyping import Float, Float32, Float64
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dinomm_train.config import ComputeConfig, ModelConfig, PositionResampling
from dinomm_train.errors import TrainError
from dinomm_train.models.stochastic_depth import branch_factors, drop_rates
from dinomm_train.models.token_stream import (
    BlockSteps,
    can_stream,
    class_features,
    end_stream,
    stream_block,
)
from dinomm_train.transfer import to_device


class Backbone(nn.Module):
    """Maps crops of any size that its patches divide to one CLS feature each.

    The network itself is `vit`, and plain timm loads its state.
    """

    def __init__(self, vit: VisionTransformer, table_resampling: PositionResampling) -> None:
        super().__init__()
        self.vit = vit
        self.table_resampling = table_resampling
        self.streams = can_stream(vit)
        """Whether crops of all sizes go through the blocks together."""
        self._rates = drop_rates(vit) if self.streams else np.zeros(0)
        self.block_steps = BlockSteps(stream_block, end_stream)
        """How crops that go together get through the blocks."""
        self._recomputes = False
        if table_resampling == "published":
            _require_published_table(vit, streams=self.streams)

    @property
    def width(self) -> int:
        """Features per crop."""
        return int(self.vit.num_features)

    @property
    def patch_px(self) -> int:
        """Side of a token's square, in pixels."""
        return _patch_px(self.vit)

    def compute_as(self, config: ComputeConfig) -> None:
        """Compile blocks and recompute activations as configured."""
        self._recomputes = config.checkpoint_activations
        through = torch.compile(stream_block, dynamic=False) if config.compile else stream_block
        self.block_steps = BlockSteps(through, end_stream)
        if not self.streams:
            self.vit.set_grad_checkpointing(config.checkpoint_activations)

    @property
    def branch_count(self) -> int:
        """Residual branches that stochastic depth may leave out; zero where there is none."""
        return int(np.count_nonzero(self._rates) and len(self._rates))

    def forward(
        self, crops: Float[Tensor, "crop channel height width"]
    ) -> Float[Tensor, "crop feature"]:
        """The CLS feature of each crop, after the last normalization."""
        return self.forward_sizes((crops,))

    def forward_sizes(
        self,
        crops_by_size: Sequence[Float[Tensor, "_ channel _ _"]],
        depth_uniforms: Float64[np.ndarray, "branch crop"] | None = None,
    ) -> Float[Tensor, "crop feature"]:
        """The CLS features of crops of several sizes, one size after the other.

        Args:
            crops_by_size: Crops of each size.
            depth_uniforms: Numbers in [0, 1) that decide which branches each crop skips in
                training; None draws them from torch's global random state.
        """
        if not self.streams:
            return torch.cat([self.vit(crops) for crops in crops_by_size])
        tokens = [self.embed(crops) for crops in crops_by_size]
        factors = self._branch_factors(depth_uniforms, tokens) if self.training else None
        return class_features(
            self.vit, tokens, factors, steps=self.block_steps, recompute=self._recomputes
        )

    def _branch_factors(
        self, uniforms: Float64[np.ndarray, "branch crop"] | None, tokens: Sequence[Tensor]
    ) -> Float32[Tensor, "branch crop"] | None:
        if not self.branch_count:
            return None
        if uniforms is None:
            shape = (len(self._rates), sum(map(len, tokens)))
            uniforms = torch.rand(shape, dtype=torch.float64).numpy()
        return to_device(branch_factors(uniforms, self._rates), tokens[0].device)

    def embed(
        self, crops: Float[Tensor, "crop channel height width"]
    ) -> Float[Tensor, "crop token feature"]:
        """Tokens with their positions, class token first."""
        vit = self.vit
        patches = vit.patch_embed(crops)  # [crop, row, column, feature]
        if self.table_resampling == "timm":
            placed = vit._pos_embed(patches)  # noqa: SLF001 (timm has no other door to this)
        else:
            count, rows, columns, _ = patches.shape
            assert vit.pos_embed is not None
            assert vit.cls_token is not None
            table = resample_table_as_published(vit.pos_embed, (rows, columns))
            classes = vit.cls_token.expand(count, -1, -1)
            placed = vit.pos_drop(torch.cat((classes, patches.flatten(1, 2)), dim=1) + table)
        tokens: Tensor = vit.norm_pre(vit.patch_drop(placed))
        return tokens


def build_backbone(config: ModelConfig, *, channels: int, global_px: int) -> Backbone:
    """A freshly initialized backbone, from torch's global random state.

    Args:
        config: Architecture; `drop_path` included, which only acts in training mode.
        channels: Bands that a crop stacks.
        global_px: Side of a global crop, in pixels; the position table fits it unless the
            configuration says otherwise.

    Raises:
        TrainError: timm has no such vision transformer, or its patches do not divide the crop.
    """
    arguments = timm_arguments(config, channels=channels, global_px=global_px)
    try:
        vit = timm.create_model(config.name, **arguments)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise TrainError(
            f"model.name {config.name!r}: timm cannot build it so ({error}); "
            "timm.list_models('vit*') names the vision transformers"
        ) from error
    if not isinstance(vit, VisionTransformer):
        raise TrainError(f"model.name {config.name!r} is a {type(vit).__name__}, not a plain ViT")
    require_divisible(vit, global_px)
    return Backbone(vit, config.table_resampling)


def timm_arguments(config: ModelConfig, *, channels: int, global_px: int) -> dict[str, Any]:
    """What `timm.create_model` takes after the model's name, as plain values."""
    dimensions = {
        "patch_size": config.patch_px,
        "depth": config.depth,
        "embed_dim": config.width,
        "num_heads": config.heads,
    }
    return {
        "img_size": config.table_px or global_px,
        "in_chans": channels,
        "num_classes": 0,
        "dynamic_img_size": True,
        "drop_path_rate": config.drop_path,
    } | {name: value for name, value in dimensions.items() if value}


def require_divisible(vit: VisionTransformer, side_px: int) -> None:
    """Return nothing where the network's patches tile an image of this side.

    Raises:
        TrainError: they do not.
    """
    patch_px = _patch_px(vit)
    if side_px % patch_px:
        raise TrainError(
            f"a crop of {side_px} px is not a multiple of the model's {patch_px} px patches; "
            "change views.crops or model.patch_px"
        )


def resample_table_as_published(
    table: Float[Tensor, "1 token feature"], grid: tuple[int, int]
) -> Float[Tensor, "1 resampled feature"]:
    """The position table (class position first) for another grid of patches, as DINO's code does.

    Bicubic without antialiasing, the scale taken from the target size plus 0.1. A table that
    already has the grid is returned as it is.
    """
    side = round((table.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return table
    class_position, patches = table[:, :1], table[:, 1:]
    image = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = [(count + 0.1) / side for count in grid]
    resampled = nn.functional.interpolate(image, scale_factor=scale, mode="bicubic")
    assert resampled.shape[-2:] == grid
    return torch.cat((class_position, resampled.flatten(2).transpose(1, 2)), dim=1)


def _patch_px(vit: VisionTransformer) -> int:
    rows_px, _ = vit.patch_embed.patch_size
    return int(rows_px)


def _require_published_table(vit: VisionTransformer, *, streams: bool) -> None:
    if vit.num_prefix_tokens != 1 or vit.no_embed_class or vit.pos_embed is None or not streams:
        raise TrainError(
            "model.table_resampling 'published' needs a plain model whose position table holds the "
            "class token and patches alone; choose 'timm'"
        )
