"""Shards read back by tarfile, GNU tar's rules and webdataset; offsets by reading at them."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
import xxhash

from bigearth_prep.bands import Sensor
from bigearth_prep.shard_writers.webdataset import npy_header, open_shard, sample_bytes

Arrays = dict[Sensor, np.ndarray]


def arrays_of(number: int, dtype: str = "uint8") -> Arrays:
    rng = np.random.default_rng(number)
    return {
        "s2": rng.integers(0, 255, (12, 120, 120)).astype(dtype),
        "s1": rng.integers(0, 255, (2, 120, 120)).astype(dtype),
    }


def write(
    path: Path, count: int = 3, dtype: str = "uint8"
) -> tuple[list[Arrays], list[dict[Sensor, int]]]:
    samples = [arrays_of(number, dtype) for number in range(count)]
    with open_shard(path) as shard:
        stored = [
            shard.add(f"patch_{number}", arrays, {"key": f"patch_{number}", "labels": ["Pastures"]})
            for number, arrays in enumerate(samples)
        ]
    return samples, [entry.offsets for entry in stored]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float16"])
def test_tarfile_and_numpy_read_back_every_member_in_the_contracts_order(
    tmp_path: Path, dtype: str
) -> None:
    samples, _ = write(tmp_path / "a.tar", dtype=dtype)
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
        assert names[:3] == ["patch_0.s2.npy", "patch_0.s1.npy", "patch_0.json"]
        assert len(names) == 9
        for number, arrays in enumerate(samples):
            for sensor, array in arrays.items():
                member = tar.extractfile(f"patch_{number}.{sensor}.npy")
                assert member is not None
                found = np.load(io.BytesIO(member.read()))
                assert found.dtype == array.dtype
                assert np.array_equal(found, array)


def test_members_hold_no_clock_user_or_host(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert (member.uname, member.gname) == ("", "")
            assert member.pax_headers == {}


@pytest.mark.parametrize("name", ["a", "ab/c" * 10, "x" * 93, "y" * 60 + "/" + "z" * 60, "ü"])
def test_headers_are_those_that_tarfile_writes(tmp_path: Path, name: str) -> None:
    arrays = arrays_of(1)
    with open_shard(tmp_path / "a.tar") as shard:
        shard.add(name, arrays, {"key": name})
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sensor, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            member = tarfile.TarInfo(f"{name}.{sensor}.npy")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
        text = json.dumps({"key": name}, ensure_ascii=False).encode()
        member = tarfile.TarInfo(f"{name}.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    found = (tmp_path / "a.tar").read_bytes()
    assert found == expected.getvalue()[: len(found)]
    assert not any(expected.getvalue()[len(found) :])


# webdataset leaves closing its files to the garbage collector
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_webdataset_decodes_samples_with_its_defaults(tmp_path: Path) -> None:
    samples, _ = write(tmp_path / "a.tar")
    dataset = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode()
    found = list(dataset)
    assert [item["__key__"] for item in found] == ["patch_0", "patch_1", "patch_2"]
    for item, arrays in zip(found, samples, strict=True):
        assert np.array_equal(item["s2.npy"], arrays["s2"])
        assert np.array_equal(item["s1.npy"], arrays["s1"])
        assert item["json"]["labels"] == ["Pastures"]


def test_recorded_offsets_point_at_the_array_data(tmp_path: Path) -> None:
    samples, offsets = write(tmp_path / "a.tar", dtype="uint16")
    content = (tmp_path / "a.tar").read_bytes()
    for arrays, places in zip(samples, offsets, strict=True):
        for sensor, array in arrays.items():
            start = places[sensor]
            assert content[start : start + array.nbytes] == array.tobytes()
            head = npy_header(array)
            assert content[start - len(head) : start] == head


def test_size_and_checksums_are_those_of_the_file_and_the_arrays(tmp_path: Path) -> None:
    arrays = arrays_of(0)
    with open_shard(tmp_path / "a.tar") as shard:
        stored = shard.add("patch_0", arrays, {})
    content = (tmp_path / "a.tar").read_bytes()
    assert shard.size_bytes == len(content)
    assert shard.xxh3_128 == xxhash.xxh3_128_hexdigest(content)
    both = arrays["s2"].tobytes() + arrays["s1"].tobytes()
    assert stored.xxh3_64 == xxhash.xxh3_64_intdigest(both)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    write(tmp_path / "b.tar")
    digests = {
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.tar", "b.tar")
    }
    assert len(digests) == 1


def test_a_failure_leaves_neither_shard_nor_partial(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON"), open_shard(tmp_path / "a.tar") as shard:
        shard.add("patch_0", arrays_of(0), {"labels": object()})
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_of_a_samples_room_holds_for_usual_metadata(tmp_path: Path) -> None:
    arrays = arrays_of(0)
    fields = {"labels": ["Transitional woodland, shrub"] * 5, "note": "x" * 300}
    with open_shard(tmp_path / "a.tar") as shard:
        shard.add("patch_0", arrays, fields)
    assert len(json.dumps(fields)) > 400
    assert shard.size_bytes - 1024 <= sample_bytes(arrays)


def test_arrays_that_are_not_contiguous_are_stored_in_order(tmp_path: Path) -> None:
    turned = arrays_of(0)["s2"].transpose(0, 2, 1)
    with open_shard(tmp_path / "a.tar") as shard:
        shard.add("patch_0", {"s2": turned}, {})
    with tarfile.open(tmp_path / "a.tar") as tar:
        member = tar.extractfile("patch_0.s2.npy")
        assert member is not None
        assert np.array_equal(np.load(io.BytesIO(member.read())), turned)
