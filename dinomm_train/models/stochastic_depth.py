"""Stochastic depth (arXiv:1603.09382): crops that skip a residual branch while training."""

import numpy as np
from jaxtyping import Float32, Float64
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer


def drop_rates(vit: VisionTransformer) -> Float64[np.ndarray, " branch"]:
    """How likely each of the blocks' two residual branches is left out, block after block."""
    return np.array(
        [
            path.drop_prob if isinstance(path, DropPath) else 0.0
            for block in vit.blocks
            for path in (block.drop_path1, block.drop_path2)
        ]
    )


def branch_factors(
    uniforms: Float64[np.ndarray, "branch crop"], rates: Float64[np.ndarray, " branch"]
) -> Float32[np.ndarray, "branch crop"]:
    """Zero where a crop skips a branch, elsewhere what keeps the branch's mean over draws.

    A branch is skipped where its uniform number in [0, 1) is below its rate.
    """
    rate = rates[:, None]
    is_kept = uniforms >= rate
    share_kept = np.where(rate < 1, 1 - rate, 1.0)
    factors: Float32[np.ndarray, "branch crop"] = (is_kept / share_kept).astype(np.float32)
    return factors
