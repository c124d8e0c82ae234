"""Batches that are known beforehand: read in order, the next ones meanwhile, shards ahead."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Int64

from dinomm_train.data import planned_batches
from dinomm_train.data.cached_shards import CachedShards
from dinomm_train.data.location import open_dataset
from dinomm_train.data.planned_batches import read_batches
from dinomm_train.data.storage_options import RetryConfig, StorageOptions
from dinomm_train.data.stored_split import StoredSplit
from dinomm_train.data.stream import ShardReader, StoredBatch
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


def remote(server: UnreliableServer, tmp_path: Path, *, shards: float) -> StoredSplit:
    cache_gb = shards * SHARD_BYTES / 1e9
    storage = StorageOptions(cache_dir=tmp_path / "cache", cache_gb=cache_gb, retry=QUICK)
    split = open_dataset(server.url, storage).split("train")
    assert isinstance(split.store, CachedShards)
    # A shard that finds no room, as none before it is released, fails the test in a minute.
    store = CachedShards(split.store.cache, spare=split.store.spare, patience_s=60.0)
    return replace(split, store=store)


def in_fours() -> list[Int64[np.ndarray, " _"]]:
    return np.split(np.arange(32), 8)


def fetched(server: UnreliableServer) -> list[str]:
    return [path for path in server.order if path.endswith(".tar")]


@pytest.mark.parametrize("shards", [5, 20])
def test_batches_come_in_the_order_asked_for_through_a_small_cache_too(
    shards: int, server: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    batches = [batch[::-1].copy() for batch in in_fours()[::-1]]
    found = list(read_batches(remote(server, tmp_path, shards=shards), batches))
    local = ShardReader(open_dataset(folder).split("train"))
    for batch, positions in zip(found, batches, strict=True):
        assert np.array_equal(batch.positions, positions)
        assert np.array_equal(batch.s2, local.read(positions).s2)
    assert len(fetched(server)) == 8


def test_the_next_batches_are_read_while_the_last_is_in_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_read = threading.Event()

    class WatchedReader(ShardReader):
        def read(self, positions: Int64[np.ndarray, " batch"]) -> StoredBatch:
            if positions[0] > 0:
                later_read.set()
            return super().read(positions)

    monkeypatch.setattr(planned_batches, "ShardReader", WatchedReader)
    batches = read_batches(open_dataset(folder).split("train"), [np.arange(4), np.arange(4, 8)])
    next(batches)
    assert later_read.wait(timeout=10)
    assert len(list(batches)) == 1


def test_shards_of_later_batches_are_fetched_meanwhile_and_closing_ends_that(
    server: UnreliableServer, tmp_path: Path
) -> None:
    batches = read_batches(remote(server, tmp_path, shards=20), in_fours())
    next(batches)
    deadline_s = time.monotonic() + 10
    while len(fetched(server)) < 8:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    batches.close()
    names = ("read-ahead", "fetch-ahead")
    assert not [one for one in threading.enumerate() if one.name.startswith(names)]


def test_a_cache_too_small_for_what_is_needed_at_once_is_refused(
    server: UnreliableServer, tmp_path: Path
) -> None:
    # Every batch needs every shard, and one is left to others.
    batches = np.split(np.arange(32).reshape(8, 4).T.ravel(), 4)
    split = remote(server, tmp_path, shards=8.5)
    with pytest.raises(TrainError, match=r"split train .* needs shards of .*--cache-gb 0\.001"):
        next(read_batches(split, batches))
    assert not fetched(server)
    assert len(list(read_batches(remote(server, tmp_path, shards=9), batches))) == 4


def test_nothing_to_read_is_no_batch(folder: Path) -> None:
    assert list(read_batches(open_dataset(folder).split("train"), [])) == []
