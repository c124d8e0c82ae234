"""The plan's promises, as properties."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigearth_prep import shard_plan
from bigearth_prep.card import SPLITS
from bigearth_prep.shard_plan import dense_shards, first_pairs, plan_shards, split_by_location

KEYS = st.lists(st.text("abcdefgh_0123456789", min_size=1), unique=True, max_size=60)


def splits_of(keys: list[str]) -> list[str]:
    return [SPLITS[len(key) % 3] for key in keys]


@given(keys=KEYS, per_shard=st.integers(1, 9), seed=st.integers(0, 9))
def test_every_pair_lands_in_exactly_one_shard_of_its_split(
    keys: list[str], per_shard: int, seed: int
) -> None:
    splits = splits_of(keys)
    specs = plan_shards(keys, splits, pairs_per_shard=per_shard, seed=seed)
    assert sorted(row for spec in specs for row in spec.rows) == list(range(len(keys)))
    assert all(splits[row] == spec.split for spec in specs for row in spec.rows)
    assert len({spec.name for spec in specs}) == len(specs)
    assert all(1 <= len(spec.rows) <= per_shard for spec in specs)


@given(keys=KEYS, seed=st.integers(0, 9), data=st.data())
def test_the_plan_does_not_depend_on_the_order_of_the_input(
    keys: list[str], seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(keys))
    plans = []
    for order in (keys, shuffled):
        specs = plan_shards(order, splits_of(list(order)), pairs_per_shard=4, seed=seed)
        plans.append([(spec.name, [order[row] for row in spec.rows]) for spec in specs])
    assert plans[0] == plans[1]


def test_the_seed_changes_the_order_and_the_order_is_not_sorted() -> None:
    keys = [f"patch_{number:03}" for number in range(200)]
    orders = [
        plan_shards(keys, ["train"] * 200, pairs_per_shard=200, seed=seed)[0].rows.tolist()
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_the_shuffle_spreads_neighbours_as_a_uniform_permutation_would() -> None:
    rows = plan_shards(
        [f"p{number:05}" for number in range(5000)], ["train"] * 5000, pairs_per_shard=5000, seed=3
    )[0].rows
    assert abs(np.corrcoef(np.arange(5000), rows)[0, 1]) < 0.05


@given(st.lists(st.sampled_from([f"33UUP_{n}_{n}" for n in range(20)]), max_size=80))
def test_one_location_is_never_in_two_splits(locations: list[str]) -> None:
    seen = defaultdict(set)
    for location, split in zip(
        locations, split_by_location(locations, (0.6, 0.2, 0.2), 1), strict=True
    ):
        seen[location].add(split)
    assert all(len(splits) == 1 for splits in seen.values())


def test_the_ratio_is_met_over_many_locations() -> None:
    splits = split_by_location([f"tile_{n}" for n in range(20000)], (0.8, 0.1, 0.1), 0)
    shares = [splits.count(split) / 20000 for split in SPLITS]
    assert np.allclose(shares, (0.8, 0.1, 0.1), atol=0.01)
    assert split_by_location([f"tile_{n}" for n in range(20000)], (8.0, 1.0, 1.0), 0) == splits


def test_a_share_of_zero_leaves_its_split_empty() -> None:
    assert set(split_by_location([f"t{n}" for n in range(500)], (0.5, 0.0, 0.5), 0)) == {
        "train",
        "test",
    }


@given(capacity=st.integers(1, 6), shares=st.lists(st.integers(0, 6), max_size=8))
def test_dense_shards_hold_every_sample_once_in_order_and_are_full_but_the_last(
    capacity: int, shares: list[int]
) -> None:
    samples = [min(share, capacity) for share in shares]
    dense = dense_shards(samples, capacity)
    copied = [
        (run.shard, place)
        for runs in dense
        for run in runs
        for place in range(run.first, run.first + run.count)
    ]
    assert copied == [
        (shard, place) for shard, count in enumerate(samples) for place in range(count)
    ]
    sizes = [sum(run.count for run in runs) for runs in dense]
    assert all(size == capacity for size in sizes[:-1])
    assert all(0 < size <= capacity for size in sizes[-1:])


def test_the_first_pairs_of_a_split_do_not_depend_on_how_it_is_cut() -> None:
    keys = [f"patch_{number:04}" for number in range(1000)]
    splits = ["train" if number % 3 else "test" for number in range(1000)]
    chosen = []
    for pairs_per_shard in (7, 400):
        shards = plan_shards(keys, splits, pairs_per_shard=pairs_per_shard, seed=3)
        first = first_pairs(shards, "train", 300)
        assert [len(spec.rows) for spec in first] == [256, 44]
        chosen.append(np.concatenate([spec.rows for spec in first]).tolist())
        (last,) = first_pairs(shards, "test", 50)
        assert {splits[row] for row in last.rows} == {"test"}
    assert chosen[0] == chosen[1]
    assert {splits[row] for row in chosen[0]} == {"train"}


def test_keys_of_one_hash_are_ordered_by_key_and_not_by_where_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [f"patch_{number}" for number in range(9)]
    monkeypatch.setattr(
        shard_plan,
        "keyed_hashes",
        lambda keys, _: np.array([int(key[-1]) % 2 for key in keys], np.uint64),
    )
    expected = keys[::2] + keys[1::2]
    for order in (keys, keys[::-1]):
        (spec,) = plan_shards(order, ["train"] * 9, pairs_per_shard=9, seed=0)
        assert [order[row] for row in spec.rows] == expected
