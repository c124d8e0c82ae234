"""Which shards are needed when, and how much at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearth_prep.card import ShardCard
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.shard_plan import (
    BATCHES_AHEAD,
    bytes_at_once,
    expected_uses,
    peak_bytes,
    uses_of_batches,
)

SHARD_BYTES = 100

counts_of_shards = st.lists(st.integers(1, 9), min_size=1, max_size=9)


def order_of(counts: list[int], *, batch: int, block: int) -> SampleOrder:
    shard_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return SampleOrder(
        shard_of=shard_of, seed=1, global_batch=min(batch, len(shard_of)), block_shards=block
    )


def cards(count: int) -> tuple[ShardCard, ...]:
    return tuple(
        ShardCard(name=str(number), samples=1, bytes=SHARD_BYTES, xxh3_128="")
        for number in range(count)
    )


@settings(deadline=None)
@given(
    counts=counts_of_shards,
    batch=st.integers(1, 9),
    block=st.integers(0, 4),
    epoch=st.integers(0, 3),
    start=st.integers(0, 50),
)
def test_uses_are_what_the_batches_read_in_the_order_of_need(
    counts: list[int], batch: int, block: int, epoch: int, start: int
) -> None:
    order = order_of(counts, batch=batch, block=block)
    start %= order.steps_per_epoch
    uses = expected_uses(cards(len(counts)), order, epoch, start)
    needed: list[str] = []
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for step in range(start, order.steps_per_epoch):
        begin = step * order.global_batch
        for position in order.epoch(epoch)[begin : begin + order.global_batch]:
            name = str(order.shard_of[position])
            first.setdefault(name, step)
            last[name] = step
            needed += [name] * (name not in needed)
    names = [shard.name for shard in uses.shards]
    assert names[: len(needed)] == needed
    assert uses.first_steps[: len(needed)].tolist() == [first[name] for name in needed]
    assert uses.last_steps[: len(needed)].tolist() == [last[name] for name in needed]
    coming = {str(shard) for shard in order.blocks(epoch + 1)[0]}
    assert set(names[len(needed) :]) == coming - set(needed)
    assert set(uses.last_steps[len(needed) :].tolist()) <= {order.steps_per_epoch - 1}


@settings(max_examples=40, deadline=None)
@given(counts=counts_of_shards, batch=st.integers(1, 9), block=st.integers(1, 4))
def test_the_peak_holds_whatever_batches_read_at_once(
    counts: list[int], batch: int, block: int
) -> None:
    order = order_of(counts, batch=batch, block=block)
    epochs = 2
    peak = peak_bytes(cards(len(counts)), order, epochs)
    for epoch in range(epochs):
        uses = expected_uses(cards(len(counts)), order, epoch)
        for step in range(order.steps_per_epoch):
            window = range(step, min(step + BATCHES_AHEAD + 1, order.steps_per_epoch))
            read = np.concatenate(
                [
                    order.epoch(epoch)[one * order.global_batch : (one + 1) * order.global_batch]
                    for one in window
                ]
            )
            # Shards are fetched in order, and kept until the step after their last one.
            wanted = {str(shard) for shard in order.shard_of[read]}
            names = [shard.name for shard in uses.shards]
            behind = max(map(names.index, wanted)) + 1
            kept = np.count_nonzero(uses.last_steps[:behind] >= step - 1)
            assert kept * SHARD_BYTES <= peak


@settings(max_examples=40, deadline=None)
@given(counts=counts_of_shards, batch=st.integers(1, 9), seed=st.integers(0, 9))
def test_batches_of_any_positions_use_what_they_read_and_hold_it_from_ahead_to_behind(
    counts: list[int], batch: int, seed: int
) -> None:
    order = order_of(counts, batch=batch, block=0)
    positions = np.random.default_rng(seed).permutation(len(order.shard_of))
    batches = [positions[first : first + batch] for first in range(0, len(positions), batch)]
    read = [{int(one) for one in order.shard_of[some]} for some in batches]
    uses = uses_of_batches(cards(len(counts)), order.shard_of, batches)
    for card, first, last in zip(uses.shards, uses.first_steps, uses.last_steps, strict=True):
        steps = [step for step, some in enumerate(read) if int(card.name) in some]
        assert (first, last) == (steps[0], steps[-1])
    assert {int(card.name) for card in uses.shards} == set().union(*read)
    assert uses.first_steps.tolist() == sorted(uses.first_steps)
    held = [
        sum(
            first - BATCHES_AHEAD <= step <= last + 1
            for first, last in zip(uses.first_steps, uses.last_steps, strict=True)
        )
        for step in range(len(batches))
    ]
    assert bytes_at_once(uses) == max(held) * SHARD_BYTES


@pytest.mark.parametrize(("block", "expected"), [(0, 10), (2, 4), (5, 10), (1, 2)])
def test_a_block_and_the_next_are_needed_at_once_and_all_for_a_full_shuffle(
    block: int, expected: int
) -> None:
    order = order_of([50] * 10, batch=8, block=block)
    assert peak_bytes(cards(10), order, epochs=4) == expected * SHARD_BYTES


def test_unused_shards_need_no_room() -> None:
    order = order_of([4, 4], batch=2, block=0)
    assert peak_bytes(cards(5), order, epochs=1) == 2 * SHARD_BYTES
