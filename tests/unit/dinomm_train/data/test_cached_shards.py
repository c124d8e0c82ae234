"""Shards that are fetched ahead, kept until they are read, and make room."""

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bigearth_prep.card import ShardCard
from dinomm_train.config import SamplingConfig
from dinomm_train.data import cached_shards
from dinomm_train.data.cached_shards import CachedShards
from dinomm_train.data.download import Source
from dinomm_train.data.loader import TrainingBatches
from dinomm_train.data.location import open_dataset
from dinomm_train.data.order import SampleOrder
from dinomm_train.data.shard_cache import ShardCache
from dinomm_train.data.shard_file import ShardFile, ShardUses
from dinomm_train.data.storage_options import RetryConfig, StorageOptions
from dinomm_train.errors import TrainError
from tests.shard_fixture import make_dataset
from tests.unreliable_server import UnreliableServer, serve

QUICK = RetryConfig(attempts=2, pause_s=0.01, stall_s=0.5)
SHARD_BYTES = 20_480
"""Of four patches of 4 px."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", size_px=4, per_shard=4, samples={"train": 32})


@pytest.fixture
def server(folder: Path) -> Iterator[UnreliableServer]:
    with serve(folder) as running:
        yield running


def open_batches(
    where: str | Path, tmp_path: Path, *, shards: int, block_shards: int
) -> TrainingBatches:
    storage = StorageOptions(
        cache_dir=tmp_path / "cache", cache_gb=shards * SHARD_BYTES / 1e9, retry=QUICK
    )
    split = open_dataset(where, storage).split("train")
    sampling = SamplingConfig(global_batch=4, shuffle="block", block_shards=block_shards)
    return TrainingBatches(split, SampleOrder.of(split, sampling))


def bytes_held(tmp_path: Path) -> int:
    held = 0
    for path in (tmp_path / "cache").rglob("*.tar*"):
        with suppress(FileNotFoundError):
            held += path.stat().st_size * (path.suffix != ".lock")
    return held


def fetched_shards(server: UnreliableServer) -> list[str]:
    return [path for path in server.order if path.endswith(".tar")]


def test_a_remote_run_sees_the_batches_of_a_local_one_within_the_cache_s_limit(
    server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    # Two blocks of two shards, and one to spare.
    remote = open_batches(server.url, tmp_path, shards=5, block_shards=2)
    local = open_batches(folder, tmp_path, shards=5, block_shards=2)
    for epoch in range(3):
        for mine, other in zip(remote.epoch(epoch), local.epoch(epoch), strict=True):
            assert np.array_equal(mine.positions, other.positions)
            assert np.array_equal(mine.s2, other.s2)
            assert bytes_held(tmp_path) <= 5 * SHARD_BYTES


def test_failed_attempts_keep_no_shard_in_a_full_cache(
    server: UnreliableServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their tracebacks lead to frames in which the shard was returned, until garbage is collected.
    batches = open_batches(server.url, tmp_path, shards=4, block_shards=1)
    monkeypatch.setattr(batches._split.store, "_patience_s", 20.0)
    server.troubles = {f"shard-{one:06}.tar": ["fail", "none"] for one in range(8)}
    gc.disable()
    try:
        assert [len(list(batches.epoch(epoch))) for epoch in range(2)] == [8, 8]
    finally:
        gc.enable()


def test_shards_are_fetched_once_an_epoch_in_the_order_of_need(
    server: UnreliableServer, tmp_path: Path
) -> None:
    batches = open_batches(server.url, tmp_path, shards=5, block_shards=2)
    assert len(list(batches.epoch(0))) == 8
    # Then come those that begin the next epoch.
    fetched = fetched_shards(server)[:8]
    order = batches.order.epoch(0)
    plan = list(dict.fromkeys(f"train/shard-{one:06}.tar" for one in batches.order.shard_of[order]))
    assert sorted(fetched) == sorted(plan)
    # Four are on their way at a time, and may overtake each other there.
    assert max(abs(fetched.index(name) - plan.index(name)) for name in plan) < 4


def test_the_next_block_is_fetched_while_this_one_is_read(
    server: UnreliableServer, tmp_path: Path
) -> None:
    epoch = open_batches(server.url, tmp_path, shards=9, block_shards=2).epoch(0)
    next(epoch)
    deadline_s = time.monotonic() + 10
    while len(fetched_shards(server)) < 8:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    epoch.close()


def test_starting_late_in_an_epoch_fetches_nothing_of_the_steps_before(
    server: UnreliableServer, tmp_path: Path
) -> None:
    batches = open_batches(server.url, tmp_path, shards=9, block_shards=1)
    assert len(list(batches.epoch(0, start_step=6))) == 2
    needed = [*batches.order.blocks(0)[6:], batches.order.blocks(1)[0]]
    allowed = {f"train/shard-{int(shard):06}.tar" for block in needed for shard in block}
    assert set(fetched_shards(server)) <= allowed


def test_a_shard_that_stays_broken_ends_the_run_with_its_name(
    server: UnreliableServer, tmp_path: Path
) -> None:
    server.troubles["shard-000003.tar"] = ["truncate"]
    batches = open_batches(server.url, tmp_path, shards=9, block_shards=8)
    with pytest.raises(TrainError, match=r"train/shard-000003\.tar could not be fetched"):
        list(batches.epoch(0))
    assert not [one for one in threading.enumerate() if one.name.startswith("fetch-ahead")]


def test_a_rank_one_step_behind_finds_what_another_has_read(
    server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    cards: tuple[ShardCard, ...] = open_dataset(folder).split("train").shards[:6]
    steps = np.arange(len(cards))
    uses = ShardUses(shards=cards, first_steps=steps, last_steps=steps)
    source = Source(server.url, QUICK)
    fast, slow = (
        CachedShards(
            ShardCache(tmp_path / "cache", "d", source, limit=4 * SHARD_BYTES),
            spare=SHARD_BYTES,
            patience_s=2.0,
        )
        for _ in range(2)
    )
    with fast.expect(uses) as fast_read:
        fast.open(cards[0])
        fast_read(0)
        # Shards of later steps, which the fast rank holds, fill the cache.
        deadline_s = time.monotonic() + 30
        while bytes_held(tmp_path) != 3 * SHARD_BYTES:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        with slow.expect(uses) as slow_read:
            slow.open(cards[0])
            slow_read(0)
            for step in range(1, len(cards)):
                for rank, was_read in ((fast, fast_read), (slow, slow_read)):
                    rank.open(cards[step])
                    was_read(step)
    assert sorted(fetched_shards(server)) == [card.name for card in cards]


def test_closing_a_run_ends_what_it_was_fetching(server: UnreliableServer, tmp_path: Path) -> None:
    batches = open_batches(server.url, tmp_path, shards=9, block_shards=1)
    last = batches.order.blocks(0)[3][0]
    server.troubles[f"shard-{last:06}.tar"] = ["stall"]
    epoch = batches.epoch(0)
    next(epoch)
    start_s = time.monotonic()
    epoch.close()
    assert time.monotonic() - start_s < 1
    assert not [one for one in threading.enumerate() if one.name.startswith("fetch-ahead")]


def test_who_waits_for_a_shard_whose_turn_has_not_come_is_free_when_the_plan_ends(
    server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    cards = open_dataset(folder).split("train").shards[:6]
    steps = np.arange(len(cards))
    for card in cards[:4]:
        server.troubles[card.name] = ["stall"]
    source = Source(server.url, RetryConfig(attempts=2, stall_s=60.0))
    store = CachedShards(ShardCache(tmp_path / "cache", "d", source), spare=1)
    uses = ShardUses(shards=cards, first_steps=steps, last_steps=steps)
    is_there = threading.Event()

    def read() -> ShardFile:
        is_there.set()
        return store.open(cards[-1])

    with ThreadPoolExecutor(1) as reader:
        with store.expect(uses):
            waiting = reader.submit(read)
            is_there.wait()
            time.sleep(0.3)
        assert isinstance(waiting.exception(timeout=20), CancelledError)


def test_who_waits_in_vain_is_told_what_may_be_wrong(
    server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    card = open_dataset(folder).split("train").shards[0]
    server.troubles["shard-000000.tar"] = ["stall"]
    source = Source(server.url, RetryConfig(attempts=2, stall_s=60.0))
    cache = ShardCache(tmp_path / "cache", "d", source)
    store = CachedShards(cache, spare=1, patience_s=0.3)
    uses = ShardUses(shards=(card,), first_steps=np.array([0]), last_steps=np.array([0]))
    with (
        store.expect(uses),
        pytest.raises(TrainError, match=r"shard http.*000000\.tar did not come, .*--cache-gb"),
    ):
        store.open(card)


class Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class SlowShard(Future[ShardFile]):
    """Comes just after some looks; before each `+` of them, bytes of another shard have come."""

    def __init__(self, shard: ShardFile, other: Path, clock: Clock, looks: str) -> None:
        super().__init__()
        self._shard, self._other, self._clock, self._looks = shard, other, clock, looks

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self.done() or timeout is None:
            return super().exception(timeout)
        self._clock.now_s += timeout
        if self._looks.startswith("+"):
            with self._other.open("ab") as file:
                file.write(b"more")
        if not self._looks:
            self.set_result(self._shard)
        self._looks = self._looks[1:]
        raise TimeoutError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cached_shards, "time", clock)
    return clock


@pytest.fixture
def waiting(folder: Path, tmp_path: Path) -> CachedShards:
    """Bears one look at which nothing has come, and not two."""
    cache = ShardCache(tmp_path / "cache", "d", Source(str(folder)))
    (cache.folder / "train").mkdir(parents=True)
    return CachedShards(cache, spare=1, patience_s=8.0)


@pytest.mark.parametrize("name", ["shard-000007.tar", "shard-000007.tar.partial"])
def test_who_waits_is_patient_as_long_as_other_shards_come(
    name: str, waiting: CachedShards, clock: Clock, folder: Path
) -> None:
    card = open_dataset(folder).split("train").shards[0]
    shard = ShardFile.open(folder / card.name)
    other = waiting.cache.folder / "train" / name
    told: list[int] = []
    waiting.on_progress = lambda: told.append(waiting.cache.bytes_here())
    waiting._expected[card.name] = SlowShard(shard, other, clock, ".+.+.++.")
    assert waiting.open(card) is shard
    assert told == [4, 8, 12, 16, 16]
    waiting.open(card)
    assert len(told) == 5, "nobody waited"
    waiting._expected[card.name] = SlowShard(shard, other, clock, "++..+")
    with pytest.raises(TrainError, match=r"000000\.tar did not come, and .* for 10 s"):
        waiting.open(card)
    assert len(told) == 5 + 2


def test_who_waits_is_told_of_another_shard_that_failed(
    waiting: CachedShards, clock: Clock, folder: Path
) -> None:
    card = open_dataset(folder).split("train").shards[0]
    shard = ShardFile.open(folder / card.name)
    failed: Future[ShardFile] = Future()
    failed.set_exception(TrainError("s3://bucket/shard-000003.tar could not be fetched"))
    other = waiting.cache.folder / "train/shard-000007.tar"
    waiting._expected = {
        card.name: SlowShard(shard, other, clock, "+++"),
        "shard-000003.tar": failed,
    }
    with pytest.raises(TrainError, match=r"000003\.tar could not be fetched"):
        waiting.open(card)


def test_what_no_plan_expects_is_waited_for_no_longer_than_what_one_does(
    server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    card = open_dataset(folder).split("train").shards[0]
    server.troubles[card.name] = ["stall"]
    cache = ShardCache(tmp_path / "cache", "d", Source(server.url, RetryConfig(stall_s=60.0)))
    with pytest.raises(TrainError, match=r"000000\.tar did not come"):
        CachedShards(cache, spare=1, patience_s=1.0).open(card)
    assert server.served[card.name] == 1, "nobody went on fetching what nobody waits for"
    server.troubles.clear()
    server.pause_s = 0.1
    store = CachedShards(cache, spare=1)
    told: list[str] = []
    store.on_progress = lambda: told.append("came")
    store.open(card).close()
    store.open(card).close()
    assert told == ["came"], "the second time it was there"


def test_what_no_plan_expects_is_fetched_when_it_is_opened(
    server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    cards: tuple[ShardCard, ...] = open_dataset(folder).split("train").shards
    cache = ShardCache(tmp_path / "cache", "d", Source(server.url, QUICK), limit=2 * SHARD_BYTES)
    store = CachedShards(cache, spare=SHARD_BYTES)
    assert store.room == SHARD_BYTES
    uses = ShardUses(shards=cards[:2], first_steps=np.array([0, 2]), last_steps=np.array([0, 2]))
    with store.expect(uses) as was_read:
        store.open(cards[0])
        # The plan's second shard waits for room; this one takes what is spared for it.
        store.open(cards[5])
        was_read(0)
        was_read(1)
        store.open(cards[1])
