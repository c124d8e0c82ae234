"""Classification by the nearest labelled neighbours, with soft votes."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import normalize

NEIGHBOURS = 20
TEMPERATURE = 0.07
"""Of the weights exp(cosine / temperature), as in DINO's own kNN evaluation."""

_SIMILARITIES_AT_ONCE = 1 << 25
"""Bounds the memory of one block of queries: 128 MiB of float32."""


def knn_votes(
    bank: Float[Tensor, "sample dim"],
    bank_labels: UInt8[Tensor, "sample class"],
    queries: Float[Tensor, "query dim"],
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "query class"]:
    """For each query and class, the weighted share of its nearest neighbours that have the class.

    Nearest is by cosine similarity s; a neighbour weighs exp(s / temperature). A bank smaller than
    `neighbours` votes as a whole.
    """
    unit_bank = normalize(bank, dim=1)
    labels = bank_labels.to(bank.dtype)
    count = min(neighbours, len(bank))
    block = max(1, _SIMILARITIES_AT_ONCE // len(bank))
    shares = []
    for unit_queries in torch.split(normalize(queries, dim=1), block):
        similarity, nearest = (unit_queries @ unit_bank.T).topk(count, dim=1)
        weights = torch.softmax(similarity / temperature, dim=1)
        shares.append(torch.einsum("qk,qkc->qc", weights, labels[nearest]))
    # A share is a sum of rounded weights: without the clamp it may exceed one by an ulp.
    return torch.cat(shares).clamp(0.0, 1.0)
