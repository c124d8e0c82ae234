"""`verify --source`: an independent road from archive to stored pixels, and what it finds."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio

from bigearth_prep.archive import StorageConfig
from bigearth_prep.cluster import ClusterConfig, open_cluster
from bigearth_prep.errors import PrepError
from bigearth_prep.manifest import read_manifest
from bigearth_prep.pairing import TableConfig
from bigearth_prep.verify.source import SourceConfig, compare_with_source, recorded_places
from bigearth_prep.verify.source_sample import SourceFinding
from tests.archive_fixture import build, copy_archive, problems_of, request

REAL = Path(__file__).parents[3] / "shared" / "real"

Damage = Callable[[Path], object]


def source_of(archive: Path, **changes: object) -> SourceConfig:
    """The archive as a source."""
    built = request(archive)
    own = SourceConfig(s2=built.s2, s1=built.s1, tables=built.tables)
    return replace(own, **changes)  # type: ignore[arg-type]


def compare(dataset: Path, source: SourceConfig) -> SourceFinding:
    with open_cluster(ClusterConfig(workers=0)) as run:
        return compare_with_source(dataset, source, run, advance=lambda _: None)


RECIPES: list[dict[str, Any]] = [
    {"scheme": "paper"},
    {"scheme": "paper", "size_px": 128},
    {"scheme": "zscore"},
    {"scheme": "zscore", "dtype": "float16", "size_px": 128, "resampling": "cubic"},
    {"scheme": "percentile", "dtype": "uint16", "resampling": "bilinear"},
    {"scheme": "percentile", "size_px": 128, "resampling": "nearest"},
    {"scheme": "none"},
    {"scheme": "none", "size_px": 128},
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("layout", ["v1", "v2", "real"])
def test_every_recipe_gives_what_its_card_says_by_another_road(
    tmp_path: Path, v1_archive: Path, v2_archive: Path, layout: str, recipe: dict[str, Any]
) -> None:
    if layout == "real" and not REAL.exists():
        pytest.skip("real patches are not at hand")
    archive = {"v1": v1_archive, "v2": v2_archive, "real": REAL / "v1"}[layout]
    build(archive, tmp_path / "out", **recipe)
    found = compare(tmp_path / "out", source_of(archive))
    assert found.problems == []
    assert found.compared == len(read_manifest(tmp_path / "out")) > 3


@pytest.mark.parametrize("shard_format", ["webdataset", "zarr", "both"])
def test_any_format_and_any_number_of_samples_can_be_compared(
    v2_archive: Path, tmp_path: Path, shard_format: str
) -> None:
    build(v2_archive, tmp_path / "out", shard_format=shard_format)
    assert compare(tmp_path / "out", source_of(v2_archive)).compared == 16
    assert compare(tmp_path / "out", source_of(v2_archive, samples=5)).compared == 5


def test_tars_and_compressed_tars_are_compared_too(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out")
    built = request(v2_archive)
    for name, kind in (("plain", "tar"), ("packed", "gztar")):
        (tmp_path / name).mkdir()
        roots = {
            sensor: Path(
                shutil.make_archive(
                    str(tmp_path / name / root.name), kind, root.parent, base_dir=root.name
                )
            )
            for sensor, root in (("s2", built.s2), ("s1", built.s1))
        }
        storage = StorageConfig(scratch=tmp_path / f"{name}.scratch")
        found = compare(tmp_path / "out", source_of(v2_archive, storage=storage, **roots))
        assert (found.problems, found.compared) == ([], 16)
        assert not storage.scratch.exists()


def rewrite_band(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """Change pixels of a file in place, all else kept."""
    with rasterio.open(path) as source:
        profile, pixels = source.profile, source.read(1)
    change(pixels)
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)


def first_file(archive: Path, pattern: str) -> Path:
    return min(archive.glob(pattern))


def test_a_changed_pixel_is_named_with_both_values(v2_archive: Path, tmp_path: Path) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    build(archive, tmp_path / "out", scheme="none")
    path = first_file(archive, "BigEarthNet-S2/*/*/*_B05.tif")
    values: list[int] = []

    def raise_one(pixels: np.ndarray) -> None:
        values.extend([int(pixels[3, 7]), int(pixels[3, 7]) + 11])
        pixels[3, 7] += 11

    rewrite_band(path, raise_one)
    (problem,) = compare(tmp_path / "out", source_of(archive)).problems
    assert problem == (
        f"{path.parent.name}: B05 differs in 4 of 14400 px, first in row 6, column 14: "
        f"stored {values[0]}, from the archive {values[1]}"
    )


def test_a_dataset_of_another_recipe_is_found_though_every_checksum_holds(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out", scheme="zscore", resampling="bilinear")
    card = json.loads((tmp_path / "out" / "dataset.json").read_text())
    card["normalization"]["resampling"] = "cubic"
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(card))
    assert problems_of(tmp_path / "out") == []
    found = compare(tmp_path / "out", source_of(v2_archive)).problems
    bands = {problem.split(": ")[1].split(" ")[0] for problem in found}
    assert bands == {"B01", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"}


def move_band(archive: Path) -> None:
    """A patch takes the place of another."""
    first, second = sorted(archive.glob("BigEarthNet-S2/*/*/*_B02.tif"))[:2]
    shutil.copy(second, first)


def drop_patch(archive: Path) -> None:
    shutil.rmtree(first_file(archive, "BigEarthNet-S1/*/*"))


def edit_table(name: str, column: str, values: list[Any]) -> Damage:
    """Another value in a column of the first row of an official table."""

    def edit(archive: Path) -> None:
        path = archive / name
        table = pq.read_table(path)
        rows = table.to_pylist()
        rows[0][column] = next(value for value in values if value != rows[0][column])
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)

    return edit


def drop_row(archive: Path) -> None:
    path = archive / "metadata.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


METADATA = "metadata.parquet"
DAMAGE: dict[str, tuple[Damage, str]] = {
    "a band of another place": (move_band, "B02 lies on"),
    "a patch that is gone": (drop_patch, "the archive lacks S1"),
    "a band that is gone": (
        lambda archive: first_file(archive, "BigEarthNet-S1/*/*/*_VV.tif").unlink(),
        "missing band",
    ),
    "a band that is no raster": (
        lambda archive: first_file(archive, "BigEarthNet-S2/*/*/*_B09.tif").write_bytes(b"II*"),
        "unreadable file",
    ),
    "other labels in the table": (
        edit_table(METADATA, "labels", [["Pastures"], ["Mixed forest"]]),
        "labels are .*, the table says",
    ),
    "another country": (edit_table(METADATA, "country", ["Mars"]), "the table says Mars"),
    "another split": (edit_table(METADATA, "split", ["train", "test"]), "split is .*, the table"),
    "another partner": (edit_table(METADATA, "s1_name", ["S1X"]), "s1_name is .*, the table"),
    "a row that is gone": (drop_row, "no table given with --metadata has it"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_differs_from_the_archive_or_the_tables_is_named(
    v2_archive: Path, tmp_path: Path, damage: str
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    build(archive, tmp_path / "out")
    inflict, message = DAMAGE[damage]
    inflict(archive)
    found = compare(tmp_path / "out", source_of(archive)).problems
    assert len(found) == 1
    assert pc.match_substring_regex(pa.array(found), message).to_pylist() == [True], found


def test_labels_times_and_partners_of_v1_come_from_its_json(
    v1_archive: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v1_archive, tmp_path / "archive")
    build(archive, tmp_path / "out")
    optical = first_file(archive, "BigEarthNet-v1.0/*/*.json")
    fields = json.loads(optical.read_text()) | {"labels": ["Sea and ocean"]}
    optical.write_text(json.dumps(fields | {"acquisition_date": "2001-01-01 00:00:00"}))
    radar = first_file(archive, "BigEarthNet-S1-v1.0/*/*.json")
    fields = json.loads(radar.read_text()) | {"corresponding_s2_patch": "S2Z"}
    radar.write_text(json.dumps(fields | {"acquisition_time": "2001-01-01T00:00:00"}))
    found = "\n".join(compare(tmp_path / "out", source_of(archive)).problems)
    assert "s2_time is 20" in found
    assert "s1_time is 20" in found
    assert "the archive's JSON says ['Marine waters']" in found
    assert "belongs to S2Z by its JSON" in found
    assert found.count("\n") == 3


def test_lists_of_splits_and_of_patches_to_leave_out_are_compared(
    v1_archive: Path, tmp_path: Path
) -> None:
    build(v1_archive, tmp_path / "out")
    rows = read_manifest(tmp_path / "out").to_pylist()
    row = next(row for row in rows if row["split"] == "train")
    listed = tmp_path / "listed.csv"
    listed.write_text(f"{row['key']}\n")
    mapping = tmp_path / "mapping.csv"
    mapping.write_text(f"S1A_IW_GRDH_other,{row['key']}\n")
    cases = {
        f"{row['key']}: split is train, the table says test": TableConfig(
            splits=(("test", listed),)
        ),
        f"{row['key']} is stored, and listed in {listed}": TableConfig(exclude=(listed,)),
        f"{row['key']}: s1_name is {row['s1_name']}, the table says S1A_IW_GRDH_other": TableConfig(
            mapping=(mapping,)
        ),
    }
    for expected, tables in cases.items():
        found = compare(tmp_path / "out", source_of(v1_archive, tables=tables)).problems
        assert found == [expected]


def test_a_dataset_knows_where_its_archive_lay(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out")
    built = request(v2_archive)
    places = recorded_places(tmp_path / "out")
    assert (places["s2"], places["s1"]) == (built.s2, built.s1)
    assert places["metadata"] == built.tables.metadata
    (tmp_path / "out" / "build.toml").unlink()
    with pytest.raises(PrepError, match="does not say where the archive was"):
        recorded_places(tmp_path / "out")


def test_another_collection_than_bigearthnet_is_refused(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out")
    text = (tmp_path / "out" / "dataset.json").read_text()
    (tmp_path / "out" / "dataset.json").write_text(text.replace("BigEarthNet v2", "SSL4EO"))
    with pytest.raises(PrepError, match="was made from SSL4EO"):
        compare(tmp_path / "out", source_of(v2_archive))
