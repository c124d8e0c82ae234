"""`verify` finds each kind of damage, in tars, in Zarr groups and in both, and says where."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigearth_prep.cluster import ClusterConfig, open_cluster
from bigearth_prep.errors import PrepError
from bigearth_prep.manifest import read_manifest
from bigearth_prep.verify import VerifyConfig, shard_count, verify_dataset
from bigearth_prep.verify.stored import open_stored
from tests.archive_fixture import build, problems_of

SHARD_MB = 0.5
"""Two samples."""

Change = Callable[[Path], object]
Damage = tuple[Change, str]
"""What is done to a dataset, and what must be said of it."""


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def first_tar(dataset: Path) -> Path:
    return dataset / "train" / "shard-000000.tar"


def first_row(dataset: Path) -> dict[str, Any]:
    return next(row for row in read_manifest(dataset).to_pylist() if row["split"] == "train")


def flip_in_tar(after_array: str, step: int) -> Change:
    """So many bytes from where the first sample's array begins."""

    def damage(dataset: Path) -> None:
        flip(first_tar(dataset), first_row(dataset)[f"offset_{after_array}"] + step)

    return damage


def flip_in_text(dataset: Path) -> None:
    content = first_tar(dataset).read_bytes()
    flip(first_tar(dataset), content.index(b'"country": "') + 12)


def swap(first: Path, second: Path) -> None:
    contents = first.read_bytes(), second.read_bytes()
    second.write_bytes(contents[0])
    first.write_bytes(contents[1])


def shorten(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(512))


def edit_rows(change: Callable[[list[dict[str, Any]]], object]) -> Change:
    def edit(dataset: Path) -> None:
        table = pq.read_table(dataset / "manifest.parquet")
        rows = table.to_pylist()
        change(rows)
        edited = pa.Table.from_pylist(rows, schema=table.schema)
        pq.write_table(edited, dataset / "manifest.parquet")

    return edit


def exchange(rows: list[dict[str, Any]], column: str) -> None:
    rows[0][column], rows[1][column] = rows[1][column], rows[0][column]


def other_labels(rows: list[dict[str, Any]]) -> None:
    rows[0]["labels"] = ["Pastures"] if rows[0]["labels"] != ["Pastures"] else ["Mixed forest"]


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    def edit(dataset: Path) -> None:
        fields = json.loads((dataset / name).read_text())
        change(fields)
        (dataset / name).write_text(json.dumps(fields))

    return edit


def reject_nothing(dataset: Path) -> None:
    table = pq.read_table(dataset / "rejected.parquet")
    more = pa.Table.from_pylist([{"key": "a", "reason": "filtered (snow)"}], schema=table.schema)
    pq.write_table(pa.concat_tables([table, more]), dataset / "rejected.parquet")


def add_a_tar(dataset: Path) -> None:
    (dataset / "train").mkdir(exist_ok=True)
    (dataset / "train" / "shard-009999.tar").touch()


IN_ANY: dict[str, Damage] = {
    "a row too many": (edit_rows(lambda rows: rows.append(rows[-1])), "occur more than once"),
    "a row of a new sample": (
        edit_rows(lambda rows: rows.append(rows[-1] | {"key": "S2A_new"})),
        r"manifest\.parquet has \d+ rows of test, dataset\.json",
    ),
    "a row too few": (edit_rows(lambda rows: rows.remove(rows[-1])), "manifest.parquet has"),
    "a row of a shard nobody lists": (
        edit_rows(lambda rows: rows[-1].update(shard="test/shard-000009.tar")),
        r"names test/shard-000009\.tar, which dataset\.json does not list",
    ),
    "a row of another split": (
        edit_rows(lambda rows: rows[0].update(split="test")),
        "manifest says split test",
    ),
    "a wrong sample checksum": (
        edit_rows(lambda rows: rows[0].update(xxh3_64=1)),
        "stored arrays do not match xxh3_64",
    ),
    "a label of another list": (
        edit_rows(lambda rows: rows[0].update(labels=["Peatbogs"])),
        r"labels \['Peatbogs'\] are not classes of dataset\.json",
    ),
    "no label": (
        edit_rows(lambda rows: rows[0].update(labels=[])),
        r"labels \[\] are not classes of dataset\.json",
    ),
    "labels out of order": (
        edit_rows(lambda rows: rows[0].update(labels=["Pastures", "Arable land"])),
        r"not in the order of dataset\.json",
    ),
    "an edited time": (
        edit_rows(lambda rows: rows[0].update(s2_time=None)),
        r"manifest\.parquet has xxh3_128",
    ),
    "no table of rejected pairs": (
        lambda dataset: (dataset / "rejected.parquet").unlink(),
        r"rejected\.parquet is missing",
    ),
    "another table of rejected pairs": (reject_nothing, r"rejected\.parquet has xxh3_128"),
    "classes in another order": (
        edit_json("dataset.json", lambda card: card["labels"]["classes"].reverse()),
        "not the official 19",
    ),
    "another scale": (
        edit_json("dataset.json", lambda card: card["sensors"]["s2"]["scale"].reverse()),
        r"dataset\.json: B01 has scale and offset",
    ),
    "another count": (
        edit_json("dataset.json", lambda card: card["splits"]["train"].update(samples=3)),
        r"rows of train, dataset\.json 3",
    ),
    "a tar nobody lists": (
        add_a_tar,
        r"train/shard-009999\.tar is in no list",
    ),
    "a group nobody lists": (
        lambda dataset: (dataset / "old.zarr").mkdir(),
        r"old\.zarr is in no list",
    ),
}

IN_TARS: dict[str, Damage] = {
    "a flipped bit in an array": (flip_in_tar("s2", 90_000), "do not match xxh3_64"),
    "a flipped bit in the other array": (flip_in_tar("s1", 7), "do not match xxh3_64"),
    "a flipped bit in a name": (
        flip_in_tar("s1", -128 - 510),
        r"the tar header of .*\.s1\.npy is damaged",
    ),
    "a flipped bit in a tar header": (
        flip_in_tar("s2", -128 - 512 + 101),
        "tar header of .*s2.npy",
    ),
    "a flipped bit in an npy header": (flip_in_tar("s2", -128 + 30), "no uint8 array of"),
    "a flipped bit behind an array": (
        flip_in_tar("s2", 12 * 120 * 120 + 3),
        "what follows the s2 array is not zero",
    ),
    "a flipped bit in a JSON": (flip_in_text, "country is .*, its JSON says"),
    "a flipped bit behind a JSON": (
        lambda dataset: flip(
            first_tar(dataset), first_tar(dataset).read_bytes().index(b"}\0\0\0") + 2
        ),
        "what follows its JSON is not zero",
    ),
    "a flipped bit in a JSON's size": (
        flip_in_tar("s1", 2 * 120 * 120 + 256 + 124),
        "no tar header of its JSON at byte",
    ),
    "a flipped bit at the end": (
        lambda dataset: flip(first_tar(dataset), -1),
        "does not end where the last sample",
    ),
    "a missing tar": (lambda dataset: first_tar(dataset).unlink(), "000000.tar is missing"),
    "swapped tars": (
        lambda dataset: swap(first_tar(dataset), dataset / "train" / "shard-000001.tar"),
        "the tar holds .* where the manifest has",
    ),
    "swapped tars of two splits": (
        lambda dataset: swap(first_tar(dataset), dataset / "test" / "shard-000000.tar"),
        r"train/shard-000000\.tar has xxh3_128",
    ),
    "a truncated tar": (
        lambda dataset: shorten(first_tar(dataset), 250_000),
        "the shard ends inside the s2 array",
    ),
    "a tar without its end": (
        lambda dataset: shorten(first_tar(dataset), 1024),
        "does not end where the last sample",
    ),
    "a tar that goes on": (
        lambda dataset: lengthen(first_tar(dataset)),
        r"000000\.tar is \d+ bytes, dataset\.json says",
    ),
    "an empty tar": (lambda dataset: first_tar(dataset).write_bytes(b""), "is 0 bytes"),
    "a wrong offset": (
        edit_rows(lambda rows: rows[0].update(offset_s1=4096)),
        r"offset_s1 is 4096, the array begins at \d+",
    ),
    "no offset": (
        edit_rows(lambda rows: rows[0].update(offset_s2=None)),
        r"offset_s2 is None, the array begins at \d+",
    ),
    "rows of one shard apart": (
        edit_rows(lambda rows: rows.insert(0, rows.pop(1))),
        "index_in_shard does not count from 0",
    ),
    "keys of two samples exchanged": (
        edit_rows(lambda rows: exchange(rows, "key")),
        "the tar holds .* where the manifest has",
    ),
    "labels that disagree with the JSON": (edit_rows(other_labels), "labels is .*, its JSON says"),
    "another country": (
        edit_rows(lambda rows: rows[0].update(country="Mars")),
        "country is Mars, its JSON says",
    ),
    "another time": (
        edit_rows(lambda rows: rows[0].update(s1_time=None)),
        r"s1_time is None, its JSON says 20",
    ),
    "another place": (edit_rows(lambda rows: rows[0].update(ulx=1.0)), "ulx, uly are 1.0"),
}


def group(dataset: Path, name: str) -> Path:
    return dataset / "train.zarr" / name


def in_group(name: str, act: Callable[[Path], object]) -> Change:
    return lambda dataset: act(group(dataset, name))


def flip_a_third_in(path: Path) -> None:
    flip(path, path.stat().st_size // 3)


IN_GROUPS: dict[str, Damage] = {
    "a flipped bit in a chunk": (
        in_group("s2/c/0/0/0/0", flip_a_third_in),
        "train.zarr, S2.*do not match xxh3_64",
    ),
    "a flipped bit in an index": (
        in_group("s1/c/0/0/0/0", lambda path: flip(path, -1)),
        "s1/c/0/0/0/0 does not end with the index",
    ),
    "swapped shard files": (
        lambda dataset: swap(group(dataset, "s1/c/0/0/0/0"), group(dataset, "s1/c/1/0/0/0")),
        "s1/c/0/0/0/0 has xxh3_128",
    ),
    "a missing shard file": (in_group("s1/c/1/0/0/0", Path.unlink), "s1/c/1/0/0/0 is missing"),
    "a short shard file": (
        in_group("s2/c/1/0/0/0", lambda path: shorten(path, 100)),
        "s2/c/1/0/0/0 does not end with the index",
    ),
    "a shard file cut in a chunk": (
        in_group("s2/c/0/0/0/0", lambda path: shorten(path, 150_000)),
        "the shard ends inside the s2 array",
    ),
    "a shard file that goes on": (in_group("s2/c/0/0/0/0", lengthen), "bytes, dataset.json says"),
    "other labels": (in_group("labels/c/0/0", flip_a_third_in), "labels/c/0/0 is not what"),
    "other keys": (in_group("key/c/0", flip_a_third_in), "key/c/0 is not what"),
    "other band names": (in_group("s2_band/c/0", flip_a_third_in), "s2_band/c/0 is not what"),
    "missing metadata": (in_group("zarr.json", Path.unlink), r"train\.zarr/zarr\.json is missing"),
    "another attribute": (
        edit_json("train.zarr/zarr.json", lambda fields: fields["attributes"].clear()),
        r"train\.zarr/zarr\.json is not what",
    ),
    "another shape": (
        edit_json("train.zarr/s1/zarr.json", lambda fields: fields["shape"].reverse()),
        r"train\.zarr/s1/zarr\.json is not what",
    ),
    "a file nobody lists": (in_group("s2/c/9", Path.touch), r"train\.zarr/s2/c/9 is in no list"),
    "a shard file that the card forgets": (
        edit_json("dataset.json", lambda card: card["splits"]["train"]["zarr"]["shards"].pop()),
        r"does not list train\.zarr/s1/c/\d+/0/0/0, which holds samples",
    ),
    "labels of the manifest that the group has not": (
        edit_rows(other_labels),
        "labels/c/0/0 is not what",
    ),
}

CASES = [
    (shard_format, name, damage)
    for shard_format, kinds in {
        "webdataset": IN_ANY | IN_TARS,
        "zarr": IN_ANY | IN_GROUPS,
        "both": IN_ANY | IN_TARS | IN_GROUPS,
    }.items()
    for name, damage in kinds.items()
]


@pytest.fixture(scope="module")
def datasets(v2_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of each format; not to be changed."""
    folder = tmp_path_factory.mktemp("datasets")
    for shard_format in ("webdataset", "zarr", "both"):
        build(v2_archive, folder / shard_format, shard_mb=SHARD_MB, shard_format=shard_format)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr", "both"])
def test_a_whole_dataset_has_no_problem(datasets: dict[str, Path], shard_format: str) -> None:
    dataset = datasets[shard_format]
    assert problems_of(dataset) == []
    for count in (1, 5, 1000):
        assert problems_of(dataset, samples=count) == []


@pytest.mark.parametrize(
    ("shard_format", "name", "damage"), CASES, ids=[f"{case[0]}: {case[1]}" for case in CASES]
)
def test_damage_is_found_and_named(
    datasets: dict[str, Path], tmp_path: Path, shard_format: str, name: str, damage: Damage
) -> None:
    inflict, message = damage
    shutil.copytree(datasets[shard_format], tmp_path / "out")
    inflict(tmp_path / "out")
    found = problems_of(tmp_path / "out")
    assert any(re.search(message, line) for line in found), (name, found)
    problems_of(tmp_path / "out", samples=3)


def is_found_off(dataset: Path) -> bool:
    """Whether `verify` would end with exit code 1."""
    try:
        return bool(problems_of(dataset))
    except PrepError:
        return True


@settings(max_examples=40, deadline=None)
@given(chosen=st.integers(0, 10**6), place=st.integers(0, 10**9), bit=st.integers(0, 7))
def test_any_flipped_bit_of_any_listed_file_is_found(
    datasets: dict[str, Path], chosen: int, place: int, bit: int
) -> None:
    dataset = datasets["both"]
    files = sorted(path for path in dataset.glob("**/*") if path.is_file())
    listed = [path for path in files if path.name not in {"dataset.json", "build.toml"}]
    path = listed[chosen % len(listed)]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[place % len(whole)] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        assert is_found_off(dataset), path
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr"])
def test_a_sample_of_samples_misses_what_it_does_not_read_and_finds_what_it_does(
    datasets: dict[str, Path], tmp_path: Path, shard_format: str
) -> None:
    shutil.copytree(datasets[shard_format], tmp_path / "out")
    if shard_format == "zarr":
        flip(group(tmp_path / "out", "s2/c/0/0/0/0"), 0)
    else:
        flip_in_tar("s2", 0)(tmp_path / "out")
    every_seed = [problems_of(tmp_path / "out", samples=4, seed=seed) for seed in range(12)]
    assert [] in every_seed
    assert {line for found in every_seed for line in found if "do not match xxh3_64" in line}
    assert all("has xxh3_128" not in line for found in every_seed for line in found)


def test_a_sample_is_drawn_by_seed_and_never_twice() -> None:
    def chosen(seed: int, samples: int = 5, total: int = 100) -> list[bool]:
        mask: list[bool] = VerifyConfig(samples=samples, seed=seed).chosen(total).tolist()
        return mask

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)
    assert sum(chosen(0)) == 5
    assert sum(chosen(0, samples=5, total=3)) == 3


def test_a_shard_in_disorder_is_a_few_lines_and_a_count(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out", shard_mb=8.0)
    edit_rows(lambda rows: [row.update(country="Mars", epsg=1, xxh3_64=2) for row in rows])(
        tmp_path / "out"
    )
    found = problems_of(tmp_path / "out")
    assert any(re.search(r"train/shard-000000\.tar: \d+ more problems", line) for line in found)
    assert len([line for line in found if "shard-000000.tar, " in line]) <= 3 * 20


def test_problems_and_progress_are_the_same_for_any_number_of_workers(
    datasets: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(datasets["both"], tmp_path / "out")
    for name in ("train/shard-000001.tar", "test/shard-000000.tar"):
        flip(tmp_path / "out" / name, 5000)
    one: list[int] = []
    with open_cluster(ClusterConfig(workers=2)) as run:
        config = VerifyConfig()
        found = verify_dataset(tmp_path / "out", config, run, advance=one.append)
    assert found == problems_of(tmp_path / "out")
    assert len(found) == 4
    assert sum(one) == shard_count(open_stored(tmp_path / "out").card)
