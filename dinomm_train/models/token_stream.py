"""A plain vision transformer over the tokens of all crops at once, whatever their sizes.

Norms, projections and perceptrons see one long stream of tokens; only attention is computed per
size of crop, as crops of one size stack. As nothing but the class token is read in the end, the
last block computes keys and values for all tokens and everything else for class tokens alone.
Weights stay where timm keeps them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

Stream = Float[Tensor, "1 _ feature"]
"""Tokens of one crop after the other."""

Shapes = tuple[tuple[int, int], ...]
"""Crops and tokens per crop, for each size of crop in the order of the stream."""

_WeightAndBias = tuple[Tensor, Tensor | None]

BlockStep = Callable[[Block, Tensor, Shapes, tuple[Tensor, Tensor] | None], Tensor]
"""What brings the stream through one block."""

Mix = Callable[[Attention, Tensor, Shapes], Tensor]
"""What attention makes of normalized tokens: `mix_tokens` or `mix_class_tokens`."""

LastStep = Callable[[Block, Tensor, Shapes, Tensor | None], Tensor]
"""What makes class tokens of the stream in the last block."""


def can_stream(vit: VisionTransformer) -> bool:
    """Whether this network is one whose blocks are known here, and which reads its class token."""
    reads_class = vit.cls_token is not None and vit.global_pool == "token"
    return type(vit) is VisionTransformer and reads_class and all(map(_is_plain, vit.blocks))


def _is_plain(block: nn.Module) -> bool:
    if type(block) is not Block or type(block.attn) is not Attention:
        return False
    return getattr(block.attn, "gate", None) is None


class BlockSteps(NamedTuple):
    """How tokens get through the blocks: by `stream_block` and `end_stream`, in some way."""

    through: BlockStep
    last: LastStep


def class_features(
    vit: VisionTransformer,
    tokens_by_size: Sequence[Float[Tensor, "_ _ feature"]],
    branch_factors: Float[Tensor, "branch crop"] | None,
    *,
    steps: BlockSteps,
    recompute: bool,
) -> Float[Tensor, "crop feature"]:
    """The normalized class token of each crop after all blocks.

    Args:
        vit: A network that `can_stream`.
        tokens_by_size: Embedded tokens of the crops of each size, class token first.
        branch_factors: What each crop's two residual branches of each block are multiplied by
            (stochastic depth); None for one.
        steps: What to do in blocks.
        recompute: Whether to compute blocks anew for the backward pass instead of storing them.
    """
    shapes = tuple((len(tokens), tokens.shape[1]) for tokens in tokens_by_size)
    stream = torch.cat([tokens.flatten(0, 1) for tokens in tokens_by_size])[None]
    run = partial(checkpoint, steps.through, use_reentrant=False) if recompute else steps.through
    *blocks, last = (block for block in vit.blocks if isinstance(block, Block))
    *pairs, last_pair = _factor_pairs(branch_factors, len(vit.blocks))
    for block, pair in zip(blocks, pairs, strict=True):
        stream = run(block, stream, shapes, _per_token(pair, shapes))
    normalized: Tensor = vit.norm(steps.last(last, stream, shapes, last_pair))
    features: Tensor = vit.forward_head(normalized.transpose(0, 1))
    return features


def mix_tokens(attention: Attention, tokens: Stream, shapes: Shapes) -> Stream:
    """Attention within each crop."""
    projected = attention.qkv(tokens)[0]
    parts = torch.split(projected, [crops * length for crops, length in shapes])
    mixed = [
        _attend(attention, *part.view(*shape, 3, -1).unbind(dim=2))
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return _leave(attention, torch.cat(mixed))


def mix_class_tokens(attention: Attention, tokens: Stream, shapes: Shapes) -> Stream:
    """Attention of each crop's class token to all of the crop."""
    of_queries, of_others = _split_projection(attention.qkv)
    queries = linear(_class_rows(tokens, shapes), *of_queries)
    others = linear(tokens[0], *of_others)
    mixed = [
        _attend(attention, query[:, None], *other.view(*shape, 2, -1).unbind(dim=2))
        for query, other, shape in zip(
            torch.split(queries, [crops for crops, _ in shapes]),
            torch.split(others, [crops * length for crops, length in shapes]),
            shapes,
            strict=True,
        )
    ]
    return _leave(attention, torch.cat(mixed))


def stream_block(
    block: Block,
    stream: Stream,
    shapes: Shapes,
    factors: tuple[Tensor, Tensor] | None,
    *,
    mix: Mix = mix_tokens,
) -> Stream:
    """The stream after one of timm's plain blocks."""
    first, second = factors or (None, None)
    mixed = mix(_attention(block), block.norm1(stream), shapes)
    stream = _add(stream, block.ls1(mixed), first)
    return _add(stream, block.ls2(block.mlp(block.norm2(stream))), second)


def end_stream(
    block: Block,
    stream: Stream,
    shapes: Shapes,
    factors: Float[Tensor, "2 crop"] | None,
    *,
    mix: Mix = mix_class_tokens,
) -> Float[Tensor, "1 crop feature"]:
    """The class tokens after the last of timm's plain blocks."""
    first, second = (None, None) if factors is None else factors[:, :, None]
    normalized = block.norm1(stream)
    mixed = mix(_attention(block), normalized, shapes)
    classes = _add(_class_rows(stream, shapes)[None], block.ls1(mixed), first)
    return _add(classes, block.ls2(block.mlp(block.norm2(classes))), second)


def _split_projection(qkv: nn.Linear) -> tuple[_WeightAndBias, _WeightAndBias]:
    """The part that gives queries, and the part that gives keys and values."""
    features = qkv.out_features // 3
    rows = [features, 2 * features]
    parameters = dict(qkv.named_parameters())
    weights = torch.split(parameters["weight"], rows)
    biases = (None, None) if "bias" not in parameters else torch.split(parameters["bias"], rows)
    return (weights[0], biases[0]), (weights[1], biases[1])


def _class_rows(stream: Stream, shapes: Shapes) -> Float[Tensor, "crop feature"]:
    parts = torch.split(stream[0], [crops * length for crops, length in shapes])
    return torch.cat(
        [part.view(*shape, -1)[:, 0] for part, shape in zip(parts, shapes, strict=True)]
    )


def _attend(
    attention: Attention,
    queries: Float[Tensor, "crop query feature"],
    keys: Float[Tensor, "crop token feature"],
    values: Float[Tensor, "crop token feature"],
) -> Float[Tensor, "crop_query feature"]:
    """Each query's mix of its crop's values, all heads side by side."""
    heads = attention.num_heads
    q, k, v = (
        tensor.view(*tensor.shape[:2], heads, -1).transpose(1, 2)
        for tensor in (queries, keys, values)
    )
    dropped = attention.attn_drop.p if attention.training else 0.0
    mix = _mix_plainly if _is_half_on_cpu(q) else scaled_dot_product_attention
    mixed: Tensor = mix(attention.q_norm(q), attention.k_norm(k), v, dropout_p=dropped)
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def _is_half_on_cpu(queries: Tensor) -> bool:
    return queries.device.type == "cpu" and queries.dtype == torch.bfloat16


def _mix_plainly(
    queries: Tensor, keys: Tensor, values: Tensor, *, dropout_p: float
) -> Float[Tensor, "crop head query feature"]:
    """Attention written out.

    Backwards, torch's fused kernel takes three times as long in bf16 on CPUs.
    """
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
    return dropout(weights, dropout_p) @ values


def _attention(block: Block) -> Attention:
    assert isinstance(block.attn, Attention)
    return block.attn


def _leave(attention: Attention, mixed: Float[Tensor, "token feature"]) -> Stream:
    left: Tensor = attention.proj_drop(attention.proj(attention.norm(mixed[None])))
    return left


def _add(stream: Stream, branch: Stream, factors: Tensor | None) -> Stream:
    return stream + (branch if factors is None else branch * factors)


def _factor_pairs(
    branch_factors: Float[Tensor, "branch crop"] | None, blocks: int
) -> Sequence[Float[Tensor, "2 crop"] | None]:
    if branch_factors is None:
        return [None] * blocks
    return branch_factors.view(blocks, 2, -1).unbind()


def _per_token(
    factors: Float[Tensor, "2 crop"] | None, shapes: Shapes
) -> tuple[Float[Tensor, "token 1"], Float[Tensor, "token 1"]] | None:
    if factors is None:
        return None
    parts = torch.split(factors[..., None], [crops for crops, _ in shapes], dim=1)
    spread = [part.expand(-1, -1, length) for part, (_, length) in zip(parts, shapes, strict=True)]
    first, second = torch.cat([part.flatten(1) for part in spread], dim=1)[..., None]
    return first, second
