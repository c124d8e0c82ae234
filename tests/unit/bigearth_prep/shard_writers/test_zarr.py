"""Shard files of Zarr arrays against numpy, and checksums against published ones."""

from pathlib import Path

import numpy as np
import pytest
import xxhash

from bigearth_prep.shard_writers.zarr import crc32c, open_zarr_shard, shard_index


@pytest.mark.parametrize(
    ("content", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc32c_of_the_rfcs_examples(content: bytes, checksum: int) -> None:
    assert crc32c(content) == checksum


def test_chunks_lie_in_order_before_an_index_that_says_where(tmp_path: Path) -> None:
    with open_zarr_shard(tmp_path / "0", capacity=5) as shard:
        for letter in b"abc":
            shard.add(bytes([letter]) * 7)
    content = (tmp_path / "0").read_bytes()
    assert content[:21] == b"aaaaaaabbbbbbbccccccc"
    absent = 2**64 - 1
    entries = np.frombuffer(content[21:-4], "<u8").reshape(5, 2).tolist()
    assert entries == [[0, 7], [7, 7], [14, 7], [absent, absent], [absent, absent]]
    assert content[21:] == shard_index(3, 5, 7)


def test_a_card_has_size_and_checksum_of_the_file(tmp_path: Path) -> None:
    with open_zarr_shard(tmp_path / "0", capacity=2) as shard:
        shard.add(b"pixels")
    content, card = (tmp_path / "0").read_bytes(), shard.card("name")
    assert (card.samples, card.bytes) == (1, len(content))
    assert card.xxh3_128 == xxhash.xxh3_128_hexdigest(content)


def test_a_shard_without_samples_is_an_empty_file(tmp_path: Path) -> None:
    with open_zarr_shard(tmp_path / "0", capacity=2) as shard:
        pass
    assert shard.card("name").bytes == 0
    assert (tmp_path / "0").read_bytes() == b""


def write_half(path: Path) -> None:
    with open_zarr_shard(path, capacity=2) as shard:
        shard.add(b"pixels")
        raise RuntimeError("the second sample is bad")


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "0")
    assert list(tmp_path.iterdir()) == []
