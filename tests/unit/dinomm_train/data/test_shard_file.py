"""Open shards and positional reads."""

import gc
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from bigearth_prep.card import ShardCard
from dinomm_train.data.shard_file import ShardFile, ShardFolder
from dinomm_train.errors import TrainError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "shard.tar"
    path.write_bytes(bytes(range(200)))
    return path


def buffers(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


def test_buffers_are_filled_one_after_another(shard: Path) -> None:
    into = buffers(3, 0, 2)
    ShardFile.open(shard).read(10, into)
    assert [bytes(one) for one in into] == [bytes([10, 11, 12]), b"", bytes([13, 14])]


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_a_read_that_the_system_cuts_short_goes_on(
    shard: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv

    def short(descriptor: int, into: Sequence[memoryview], offset: int) -> int:
        content = os.pread(descriptor, min(most, sum(map(len, into))), offset)
        part = memoryview(bytearray(len(content)))
        assert real(descriptor, [part], offset) == len(content)
        left = bytes(part)
        for buffer in into:
            taken = min(len(buffer), len(left))
            buffer[:taken], left = left[:taken], left[taken:]
        return len(content)

    monkeypatch.setattr(os, "preadv", short)
    into = buffers(4, 1, 6)
    ShardFile.open(shard).read(50, into)
    assert b"".join(into) == bytes(range(50, 61))


def test_a_shard_that_ends_within_a_read_is_named(shard: Path) -> None:
    with pytest.raises(TrainError, match=r"shard\.tar ends at byte 200, 5 bytes short"):
        ShardFile.open(shard).read(190, buffers(15))


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"gone\.tar cannot be opened \(No such file"):
        ShardFile.open(tmp_path / "gone.tar")


def test_the_shards_read_last_stay_open_and_no_more_than_allowed(tmp_path: Path) -> None:
    cards = []
    for number in range(4):
        cards.append(ShardCard(name=f"{number}.tar", samples=1, bytes=1, xxh3_128=""))
        (tmp_path / cards[-1].name).write_bytes(b"x")

    def open_shards() -> set[str]:
        gc.collect()
        links = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
        return {link.name for link in links if link.parent == tmp_path}

    folder = ShardFolder(tmp_path, max_open_shards=2)
    for card in (*cards, cards[2]):
        folder.open(card)
    assert open_shards() == {"2.tar", "3.tar"}
    folder.open(cards[0])
    assert open_shards() == {"2.tar", "0.tar"}
    del folder
    assert not open_shards()
