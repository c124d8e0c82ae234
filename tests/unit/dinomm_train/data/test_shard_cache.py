"""A bounded folder of shards that processes share."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from dinomm_train.data.download import ExpectedFile, FetchStopped, Source
from dinomm_train.data.shard_cache import ShardCache, private_folder
from dinomm_train.data.shard_file import ShardFile
from dinomm_train.data.storage_options import RetryConfig
from dinomm_train.errors import TrainError
from tests.unreliable_server import UnreliableServer, serve

SIZE = 10_000
QUICK = RetryConfig(attempts=2, pause_s=0.01, stall_s=0.5)


def content_of(number: int) -> bytes:
    return bytes([number]) * SIZE


def shard(number: int) -> ExpectedFile:
    return ExpectedFile(
        name=f"train/{number}.tar",
        bytes=SIZE,
        xxh3_128=xxhash.xxh3_128_hexdigest(content_of(number)),
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UnreliableServer]:
    (tmp_path / "served/train").mkdir(parents=True)
    for number in range(6):
        (tmp_path / f"served/train/{number}.tar").write_bytes(content_of(number))
    with serve(tmp_path / "served") as running:
        yield running


def open_cache(
    server: UnreliableServer, tmp_path: Path, *, shards: int = 3, dataset: str = "d"
) -> ShardCache:
    source = Source(server.url, QUICK)
    return ShardCache(tmp_path / "cache", dataset, source, limit=shards * SIZE)


def held(tmp_path: Path) -> list[str]:
    return sorted(path.stem for path in (tmp_path / "cache").rglob("*.tar"))


def first_byte(file: ShardFile) -> int:
    byte = memoryview(bytearray(1))
    file.read(0, [byte])
    return byte[0]


def test_a_shard_is_fetched_once_and_read_from_the_folder(
    server: UnreliableServer, tmp_path: Path
) -> None:
    cache = open_cache(server, tmp_path)
    assert not cache.holds(shard(1))
    assert first_byte(cache.get(shard(1))) == 1
    assert cache.holds(shard(1))
    assert first_byte(open_cache(server, tmp_path).get(shard(1))) == 1
    assert server.served == {"train/1.tar": 1}
    assert (cache.folder / "train/1.tar").read_bytes() == content_of(1)


def test_shards_used_longest_ago_make_room(server: UnreliableServer, tmp_path: Path) -> None:
    cache = open_cache(server, tmp_path)
    for number in (0, 1, 2, 0, 3):
        cache.get(shard(number))
        time.sleep(0.01)
    assert held(tmp_path) == ["0", "2", "3"]


def test_all_of_a_user_s_datasets_share_the_limit(server: UnreliableServer, tmp_path: Path) -> None:
    for number, dataset in enumerate("aabb"):
        open_cache(server, tmp_path, dataset=dataset).get(shard(number))
        time.sleep(0.01)
    assert held(tmp_path) == ["1", "2", "3"]


def test_a_shard_that_is_read_stays_and_the_next_waits_for_room(
    server: UnreliableServer, tmp_path: Path
) -> None:
    cache = open_cache(server, tmp_path, shards=2)
    readers = [cache.get(shard(0)), cache.get(shard(1))]
    got: list[ShardFile] = []
    waiting = threading.Thread(target=lambda: got.append(cache.get(shard(2))))
    waiting.start()
    time.sleep(0.3)
    assert (got, held(tmp_path)) == ([], ["0", "1"])
    assert first_byte(readers.pop(0)) == 0
    waiting.join(5)
    assert first_byte(got[0]) == 2
    assert held(tmp_path) == ["1", "2"]


def test_who_leaves_some_room_to_others_does_not_take_it(
    server: UnreliableServer, tmp_path: Path
) -> None:
    cache = open_cache(server, tmp_path, shards=2)
    reader = cache.get(shard(0), spare=SIZE)
    with pytest.raises(FetchStopped):
        cache.get(shard(1), spare=SIZE, is_wanted=lambda: False)
    assert first_byte(cache.get(shard(1))) == 1
    assert first_byte(reader) == 0


def test_a_shard_larger_than_the_limit_is_refused(server: UnreliableServer, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", "d", Source(server.url), limit=SIZE - 1)
    with pytest.raises(TrainError, match=r"train/0\.tar has 10,000 bytes, more than the 9,999"):
        cache.get(shard(0))


def test_what_cannot_be_fetched_leaves_nothing_and_takes_no_room(
    server: UnreliableServer, tmp_path: Path
) -> None:
    server.troubles["0.tar"] = ["truncate"]
    cache = open_cache(server, tmp_path, shards=1)
    with pytest.raises(TrainError, match=r"train/0\.tar could not be fetched"):
        cache.get(shard(0))
    assert not list(cache.folder.rglob("*.partial"))
    cache.get(shard(1))
    assert held(tmp_path) == ["1"]


def test_a_cached_shard_of_the_wrong_size_is_fetched_again(
    server: UnreliableServer, tmp_path: Path
) -> None:
    cache = open_cache(server, tmp_path)
    path = cache.folder / "train/1.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"short")
    assert not cache.holds(shard(1))
    assert first_byte(cache.get(shard(1))) == 1
    assert path.read_bytes() == content_of(1)


_FETCH = """
import sys
from pathlib import Path
from tests.unit.dinomm_train.data.test_shard_cache import SIZE, first_byte, shard
from dinomm_train.data.download import Source
from dinomm_train.data.storage_options import RetryConfig
from dinomm_train.data.shard_cache import ShardCache
url, folder, limit = sys.argv[1:]
source = Source(url, RetryConfig(attempts=2, pause_s=0.01, stall_s=60.0))
cache = ShardCache(Path(folder), "d", source, limit=int(limit))
for number in [*range(6), *range(6)]:
    assert first_byte(cache.get(shard(number))) == number
"""


def start(server: UnreliableServer, tmp_path: Path, *, shards: int) -> subprocess.Popen[bytes]:
    arguments = [server.url, str(tmp_path / "cache"), str(shards * SIZE)]
    return subprocess.Popen([sys.executable, "-c", _FETCH, *arguments])


def test_processes_share_what_one_of_them_fetched(server: UnreliableServer, tmp_path: Path) -> None:
    server.pause_s = 0.1
    processes = [start(server, tmp_path, shards=6) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert set(server.served.values()) == {1}
    assert held(tmp_path) == list("012345")


def test_processes_that_evict_each_other_s_shards_read_the_right_bytes(
    server: UnreliableServer, tmp_path: Path
) -> None:
    processes = [start(server, tmp_path, shards=2) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(held(tmp_path)) <= 2


def test_a_killed_process_leaves_nothing_that_lasts(
    server: UnreliableServer, tmp_path: Path
) -> None:
    server.troubles["0.tar"] = ["stall", "none"]
    process = start(server, tmp_path, shards=1)
    partial = tmp_path / "cache" / f"dinomm-{os.getuid()}" / "d/train/0.tar.partial"
    deadline_s = time.monotonic() + 30
    while not (partial.is_file() and partial.stat().st_size):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.kill()
    process.wait(10)
    assert partial.is_file()
    # The partial file and the room that it had are gone as soon as the cache is opened.
    cache = open_cache(server, tmp_path, shards=1)
    assert not partial.exists()
    cache.get(shard(1))
    assert first_byte(cache.get(shard(0))) == 0


def test_a_folder_of_another_user_or_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = private_folder(tmp_path)
    assert own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    (tmp_path / "dinomm-4711").mkdir()
    with pytest.raises(TrainError, match="dinomm-4711 belongs to another user"):
        private_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="cannot be made"):
        private_folder(tmp_path / "file")


def test_a_cache_without_a_limit_takes_most_of_what_is_free(
    server: UnreliableServer, tmp_path: Path
) -> None:
    cache = ShardCache(tmp_path / "cache", "d", Source(server.url))
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert 0.8 * free < cache.limit < free
