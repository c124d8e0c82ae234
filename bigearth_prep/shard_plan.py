"""Which pair goes into which shard: a function of the keys and the seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from jaxtyping import Int64, UInt64

from bigearth_prep.card import SPLITS

_SAMPLED_PER_SHARD = 256


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """One shard to be written: its place in the dataset, and its pairs in stored order."""

    split: str
    number: int
    rows: Int64[np.ndarray, " pair"]
    """Row numbers in the table of pairs."""

    @property
    def name(self) -> str:
        """Path of the tar relative to the dataset folder."""
        return f"{self.split}/shard-{self.number:06d}.tar"


def keyed_hashes(keys: Sequence[str], seed: int) -> UInt64[np.ndarray, " key"]:
    """A 64-bit number per key that depends on the key and the seed only (xxh3)."""
    return np.fromiter(
        (xxhash.xxh3_64_intdigest(key.encode(), seed) for key in keys),
        dtype=np.uint64,
        count=len(keys),
    )


def plan_shards(
    keys: Sequence[str], splits: Sequence[str], *, pairs_per_shard: int, seed: int
) -> list[ShardSpec]:
    """Shards of every split, pairs shuffled by a seeded order that the input order cannot change.

    Pairs are sorted by a keyed hash, so that adding or losing one pair leaves the order of all
    others as it was. All shards of a split hold `pairs_per_shard` pairs, the last one the rest.
    """
    order = _order_of(keys, keyed_hashes(keys, seed))
    split_of = np.asarray(splits, dtype=np.str_)[order]
    specs = []
    for split in SPLITS:
        rows = order[split_of == split].astype(np.int64)
        starts = range(0, len(rows), pairs_per_shard)
        specs += [
            ShardSpec(split, number, rows[start : start + pairs_per_shard])
            for number, start in enumerate(starts)
        ]
    return specs


def first_pairs(shards: Sequence[ShardSpec], split: str, count: int) -> list[ShardSpec]:
    """The first pairs of a split in shards of their own: a sample of it, as its order is random.

    It depends on the keys and the seed only, not on how large the given shards are.
    """
    rows = np.concatenate([spec.rows for spec in shards if spec.split == split])[:count]
    starts = range(0, len(rows), _SAMPLED_PER_SHARD)
    return [
        ShardSpec(split, number, rows[start : start + _SAMPLED_PER_SHARD])
        for number, start in enumerate(starts)
    ]


def _order_of(keys: Sequence[str], hashes: UInt64[np.ndarray, " key"]) -> Int64[np.ndarray, " key"]:
    """By hash; keys decide where hashes are equal, which half a million hardly ever are."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    if (ordered[1:] == ordered[:-1]).any():
        order = np.lexsort((np.asarray(keys, dtype=np.str_), hashes))
    return order


def split_by_location(
    locations: Sequence[str], ratio: tuple[float, float, float], seed: int
) -> list[str]:
    """A split per pair; pairs of one location always share it.

    Each location falls on a seeded point of the unit interval, which the ratio cuts in three.
    """
    points = keyed_hashes(locations, seed).astype(np.float64) / 2.0**64
    cuts = np.cumsum(ratio)[:2] / sum(ratio)
    return [SPLITS[index] for index in np.searchsorted(cuts, points, side="right")]


@dataclass(frozen=True, slots=True)
class SampleRun:
    """Consecutive samples of one shard."""

    shard: int
    first: int
    count: int


def dense_shards(samples: Sequence[int], capacity: int) -> list[list[SampleRun]]:
    """For each shard of a regular array, which samples of which ragged shards it holds.

    Args:
        samples: Samples that each ragged shard holds, at most `capacity`.
        capacity: Samples that every shard of the array holds, the last one excepted.
    """
    dense: list[list[SampleRun]] = []
    room = 0
    for shard, count in enumerate(samples):
        first = 0
        while first < count:
            if not room:
                dense.append([])
                room = capacity
            taken = min(room, count - first)
            dense[-1].append(SampleRun(shard, first, taken))
            first, room = first + taken, room - taken
    return dense
