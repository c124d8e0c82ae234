"""`verify` finds each kind of damage, and says which file and sample."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigearth_prep.manifest import read_manifest
from bigearth_prep.verify import verify_dataset
from bigearth_prep.verify_files import VerifyConfig
from tests.archive_fixture import build


def problems(dataset: Path) -> list[str]:
    return verify_dataset(dataset, VerifyConfig(threads=1), advance=lambda _: None)


def shards(dataset: Path) -> list[Path]:
    return sorted(dataset.glob("*/*.tar"))


def flip_a_bit(dataset: Path) -> None:
    path = shards(dataset)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def remove_a_shard(dataset: Path) -> None:
    shards(dataset)[-1].unlink()


def swap_two_shards(dataset: Path) -> None:
    first, second = shards(dataset)[:2]
    spare = dataset / "spare"
    first.rename(spare)
    second.rename(first)
    spare.rename(second)


def truncate_a_shard(dataset: Path) -> None:
    path = shards(dataset)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def add_a_strange_shard(dataset: Path) -> None:
    (dataset / "train" / "shard-009999.tar").touch()


def edit_manifest(change: Callable[[list[dict[str, object]]], None]) -> Callable[[Path], None]:
    def edit(dataset: Path) -> None:
        table = pq.read_table(dataset / "manifest.parquet")
        rows = table.to_pylist()
        change(rows)
        pq.write_table(
            pa.Table.from_pylist(rows, schema=table.schema), dataset / "manifest.parquet"
        )

    return edit


def swap(rows: list[dict[str, object]], column: str) -> None:
    rows[0][column], rows[1][column] = rows[1][column], rows[0][column]


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped bit": (flip_a_bit, "has xxh3_128"),
    "a missing shard": (remove_a_shard, "is missing"),
    "swapped shards": (swap_two_shards, "has xxh3_128"),
    "a truncated shard": (truncate_a_shard, "the shard ends inside"),
    "a shard nobody lists": (add_a_strange_shard, "is in no list"),
    "a manifest row too many": (
        edit_manifest(lambda rows: rows.append(dict(rows[-1]))),
        "occur more than once",
    ),
    "a manifest row too few": (edit_manifest(lambda rows: rows.remove(rows[-1])), "manifest has"),
    "a wrong offset": (
        edit_manifest(lambda rows: rows[0].update(offset_s1=4096)),
        "array of .* begins at offset_s1 = 4096",
    ),
    "a wrong sample checksum": (
        edit_manifest(lambda rows: rows[0].update(xxh3_64=1)),
        "do not match xxh3_64",
    ),
    "a label of another list": (
        edit_manifest(lambda rows: rows[0].update(labels=["Peatbogs"])),
        "not official classes",
    ),
    "labels out of order": (
        edit_manifest(lambda rows: rows[0].update(labels=["Pastures", "Arable land"])),
        "not in official order",
    ),
    "keys of two samples exchanged": (
        edit_manifest(lambda rows: swap(rows, "key")),
        "keys of the manifest are not those in the tar",
    ),
    "another country": (
        edit_manifest(lambda rows: rows[0].update(country="Mars")),
        "country is Mars, its JSON says",
    ),
    "an edited time": (
        edit_manifest(lambda rows: rows[0].update(s2_time=None)),
        r"manifest\.parquet has xxh3_128",
    ),
    "no table of rejected pairs": (
        lambda dataset: (dataset / "rejected.parquet").unlink(),
        r"rejected\.parquet is missing",
    ),
    "a row of another split": (
        edit_manifest(lambda rows: rows[0].update(split="test")),
        "manifest says split test",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_named(v2_archive: Path, tmp_path: Path, damage: str) -> None:
    build(v2_archive, tmp_path / "out", shard_mb=0.7)
    assert problems(tmp_path / "out") == []
    inflict, message = DAMAGE[damage]
    inflict(tmp_path / "out")
    found = "\n".join(problems(tmp_path / "out"))
    assert re.search(message, found), found


def test_a_sample_reads_less_and_still_finds_a_short_shard(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out")
    row = read_manifest(tmp_path / "out").to_pylist()[0]
    content = bytearray((tmp_path / "out" / row["shard"]).read_bytes())
    content[row["offset_s2"]] ^= 4
    (tmp_path / "out" / row["shard"]).write_bytes(content)

    def sampled(seed: int) -> list[str]:
        config = VerifyConfig(threads=1, samples_per_shard=1, seed=seed)
        return verify_dataset(tmp_path / "out", config, advance=lambda _: None)

    every_seed = [sampled(seed) for seed in range(12)]
    assert [] in every_seed
    assert any("do not match xxh3_64" in line for found in every_seed for line in found)
    truncate_a_shard(tmp_path / "out")
    assert any("dataset.json says" in line for line in sampled(0))


def test_a_sample_is_drawn_by_seed_and_shard_and_never_twice() -> None:
    def chosen(shard: str, seed: int) -> list[int]:
        return VerifyConfig(threads=1, samples_per_shard=5, seed=seed).chosen(shard, 100)

    assert chosen("a", 0) == chosen("a", 0)
    assert len(set(chosen("a", 0))) == 5
    assert len({tuple(chosen(shard, seed)) for shard in "ab" for seed in (0, 1)}) == 4
    assert VerifyConfig(threads=1, samples_per_shard=5).chosen("a", 3) == [0, 1, 2]
