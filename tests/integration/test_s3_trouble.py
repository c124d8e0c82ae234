"""A bucket that fails, stalls and truncates, is not there, or is not for us."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from dinomm_train.data.download import ExpectedFile, Source
from dinomm_train.data.location import open_dataset
from dinomm_train.data.storage_options import RetryConfig, StorageOptions
from dinomm_train.data.stream import ShardReader
from dinomm_train.errors import TrainError
from tests.s3_server import ADDRESS, BUCKET, PREFIX, find_at, serve_bucket
from tests.shard_fixture import make_dataset
from tests.unreliable_server import Trouble, UnreliableServer, serve_in_front_of

QUICK = RetryConfig(attempts=2, pause_s=0.02, stall_s=0.8)
SHARD = "train/shard-000001.tar"
GETS = f"{BUCKET}/{PREFIX}/{SHARD}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("shards"), size_px=16)


@pytest.fixture(scope="module")
def storage(folder: Path) -> Iterator[str]:
    with serve_bucket(folder) as url:
        yield url


@pytest.fixture
def front(storage: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnreliableServer]:
    """What the libraries take for the storage."""
    with serve_in_front_of(storage) as server:
        find_at(server.url, monkeypatch)
        # Opens the session, which takes longer than a test's patience.
        Source(ADDRESS, QUICK).size("dataset.json")
        yield server


@pytest.fixture
def shard(folder: Path) -> ExpectedFile:
    (card,) = (one for one in open_dataset(folder).split("train").shards if one.name == SHARD)
    return ExpectedFile(name=SHARD, bytes=card.bytes, xxh3_128=card.xxh3_128)


@pytest.mark.parametrize("trouble", ["fail", "stall", "truncate", "flip"])
def test_a_bucket_in_passing_trouble_is_asked_again(
    trouble: Trouble, front: UnreliableServer, folder: Path, shard: ExpectedFile, tmp_path: Path
) -> None:
    front.troubles[SHARD] = [trouble, "none"]
    Source(ADDRESS, QUICK).fetch(shard, tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == (folder / SHARD).read_bytes()
    assert front.served == {GETS: 2}


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("fail", "503|Service Unavailable"),
        ("stall", "imeout|no byte came for 0.8 s"),
        ("truncate", "not completed|bytes came|not complete"),
        ("flip", "its xxh3_128 is |did not match calculated checksum"),
    ],
)
def test_a_bucket_that_stays_broken_is_given_up_with_the_shard_s_name(
    trouble: Trouble,
    reason: str,
    front: UnreliableServer,
    shard: ExpectedFile,
    tmp_path: Path,
) -> None:
    front.troubles[SHARD] = [trouble]
    message = rf"^{ADDRESS}/{SHARD} could not be fetched in 2 attempts, the last: .*({reason}).*$"
    with pytest.raises(TrainError, match=message):
        Source(ADDRESS, QUICK).fetch(shard, tmp_path / "got")
    assert front.served == {GETS: 2}


def test_sizes_are_asked_for_again_too(front: UnreliableServer, folder: Path) -> None:
    for trouble in ("fail", "stall"):
        front.head_troubles[SHARD] = [trouble, "none"]
        assert Source(ADDRESS, QUICK).size(SHARD) == (folder / SHARD).stat().st_size
        assert front.head_troubles[SHARD] == ["none"]
    front.head_troubles[SHARD] = ["fail"]
    with pytest.raises(TrainError, match=rf"{SHARD} could not be fetched in 2 attempts"):
        Source(ADDRESS, QUICK).size(SHARD)


def test_a_shard_comes_in_one_stream(front: UnreliableServer, storage: str, tmp_path: Path) -> None:
    # Longer than the blocks in which s3fs would ask for parts of it side by side.
    content = bytes(60 << 20)
    client = boto3.client("s3", endpoint_url=storage)
    client.put_object(Bucket=BUCKET, Key="long.tar", Body=content)
    client.close()
    Source(f"s3://{BUCKET}", QUICK).fetch(ExpectedFile(name="long.tar"), tmp_path / "got")
    assert (tmp_path / "got").stat().st_size == len(content)
    assert front.served == {f"{BUCKET}/long.tar": 1}


def test_a_dataset_in_a_troubled_bucket_reads_like_the_folder(
    front: UnreliableServer, folder: Path, tmp_path: Path
) -> None:
    front.troubles = {
        "dataset.json": ["fail", "none"],
        "manifest.parquet": ["truncate", "none"],
        SHARD: ["stall", "none"],
    }
    front.head_troubles = {SHARD: ["fail", "none"]}
    remote = open_dataset(ADDRESS, StorageOptions(cache_dir=tmp_path, retry=QUICK)).split("train")
    local = open_dataset(folder).split("train")
    positions = range(len(local))
    mine, other = (
        ShardReader(one).read(local.shard_of.argsort()[positions]) for one in (remote, local)
    )
    assert (mine.s2 == other.s2).all()


def open_at(address: str, tmp_path: Path) -> None:
    open_dataset(address, StorageOptions(cache_dir=tmp_path, retry=QUICK))


def test_a_bucket_or_key_that_is_not_there_is_named_at_once(
    front: UnreliableServer, tmp_path: Path
) -> None:
    for address, reason in (
        ("s3://nobody-has-this/ben", "bucket does not exist"),
        (f"s3://{BUCKET}/elsewhere", "key does not exist."),
    ):
        message = rf"^{address}/dataset\.json is missing or not readable \(.*{reason}\); check the"
        with pytest.raises(TrainError, match=message):
            open_at(address, tmp_path)
    assert set(front.served.values()) == {1}


def test_a_bucket_that_is_not_for_us_is_named_at_once(
    front: UnreliableServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    front.troubles["dataset.json"] = ["deny"]
    with pytest.raises(TrainError, match=r"dataset\.json is missing or not readable \(Forbidden"):
        open_at(ADDRESS, tmp_path)
    assert set(front.served.values()) == {1}
    find_at(front.url, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(TrainError, match=r"dataset\.json cannot be asked for without credentials"):
        open_at(ADDRESS, tmp_path)
    assert set(front.served.values()) == {1}


@pytest.mark.slow
@pytest.mark.usefixtures("front")
def test_the_command_ends_with_one_message(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dinomm_train", "order", "s3://nobody-has-this/ben"]
    ended = subprocess.run(
        [*command, "--step", "0"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: s3://nobody-has-this/ben/dataset.json is missing")
