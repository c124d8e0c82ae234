"""Files from a web server that fails, stalls, truncates and lies."""

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from dinomm_train.data.download import ExpectedFile, FetchStopped, Source
from dinomm_train.data.storage_options import RetryConfig
from dinomm_train.errors import TrainError
from tests.unreliable_server import Trouble, UnreliableServer, serve

QUICK = RetryConfig(attempts=3, pause_s=0.02, stall_s=0.3)
CONTENT = bytes(range(256)) * 4000
SHARD = ExpectedFile(
    name="train/shard.tar", bytes=len(CONTENT), xxh3_128=xxhash.xxh3_128_hexdigest(CONTENT)
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UnreliableServer]:
    (tmp_path / "served/train").mkdir(parents=True)
    (tmp_path / "served/train/shard.tar").write_bytes(CONTENT)
    with serve(tmp_path / "served") as running:
        yield running


def test_a_file_comes_whole(server: UnreliableServer, tmp_path: Path) -> None:
    source = Source(server.url, QUICK)
    assert source.size("train/shard.tar") == len(CONTENT)
    source.fetch(SHARD, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert server.served == {"train/shard.tar": 1}


@pytest.mark.parametrize("trouble", ["fail", "stall", "truncate", "flip"])
def test_a_source_in_passing_trouble_is_asked_again(
    trouble: Trouble, server: UnreliableServer, tmp_path: Path
) -> None:
    server.troubles["shard.tar"] = [trouble, trouble, "none"]
    Source(server.url, QUICK).fetch(SHARD, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == CONTENT
    assert server.served["train/shard.tar"] == 3


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("fail", "503"),
        ("stall", "imeout|no byte came for 0.3 s"),
        ("truncate", "not completed|bytes came"),
        ("flip", f"its xxh3_128 is .*expected {SHARD.xxh3_128}"),
    ],
)
def test_a_source_that_stays_broken_is_given_up_with_the_shard_s_name(
    trouble: Trouble, reason: str, server: UnreliableServer, tmp_path: Path
) -> None:
    server.troubles["shard.tar"] = [trouble]
    message = rf"{server.url}/train/shard.tar could not be fetched in 3 attempts, .*({reason})"
    with pytest.raises(TrainError, match=message):
        Source(server.url, QUICK).fetch(SHARD, tmp_path / "got")
    assert server.served["train/shard.tar"] == 3


def test_pauses_between_attempts_grow(server: UnreliableServer, tmp_path: Path) -> None:
    server.troubles["shard.tar"] = ["fail"]
    start_s = time.monotonic()
    with pytest.raises(TrainError):
        Source(server.url, RetryConfig(attempts=3, pause_s=0.2)).fetch(SHARD, tmp_path / "got")
    assert time.monotonic() - start_s > 0.6


def test_what_is_not_there_is_not_asked_for_again(server: UnreliableServer, tmp_path: Path) -> None:
    source = Source(server.url, QUICK)
    with pytest.raises(TrainError, match=r"train/gone\.tar is missing"):
        source.fetch(ExpectedFile(name="train/gone.tar"), tmp_path / "got")
    assert server.served["train/gone.tar"] == 1
    with pytest.raises(TrainError, match=r"train/gone\.tar is missing"):
        source.size("train/gone.tar")


def test_a_file_that_nobody_wants_any_more_is_given_up(
    server: UnreliableServer, tmp_path: Path
) -> None:
    server.troubles["shard.tar"] = ["stall"]
    ended = threading.Event()
    threading.Timer(0.2, ended.set).start()
    start_s = time.monotonic()
    with pytest.raises(FetchStopped):
        Source(server.url, RetryConfig(stall_s=60.0)).fetch(
            SHARD, tmp_path / "got", is_wanted=lambda: not ended.is_set()
        )
    assert time.monotonic() - start_s < 2


def test_a_full_disk_is_not_the_source_s_fault(
    server: UnreliableServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dinomm_train.data.download._await", no_space)
    with pytest.raises(TrainError, match=r"takes no more .*No space left.*--cache-gb"):
        Source(server.url, QUICK).fetch(SHARD, tmp_path / "got")
    assert server.served["train/shard.tar"] <= 1


def test_a_folder_is_a_source_too(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/shard.tar").write_bytes(CONTENT)
    file = ExpectedFile(name="shard.tar", bytes=len(CONTENT), xxh3_128=SHARD.xxh3_128)
    Source(str(tmp_path / "from"), QUICK).fetch(file, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == CONTENT
    (tmp_path / "from/shard.tar").write_bytes(CONTENT[:-1])
    with pytest.raises(TrainError, match="1,023,999 bytes came, expected 1,024,000"):
        Source(str(tmp_path / "from"), QUICK).fetch(file, tmp_path / "got")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(TrainError, match="nowhere://x cannot be opened: Protocol not known"):
        Source("nowhere://x")
