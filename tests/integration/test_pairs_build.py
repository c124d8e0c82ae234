"""From a table of pairs to a dataset: contents against rasterio, faults, and the same bytes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import xarray

import bigearth_prep
from bigearth_prep import pipeline
from bigearth_prep.bands import ALL_BANDS, S1_BANDS, S2_BANDS, Sensor
from bigearth_prep.cluster import ClusterConfig, open_cluster
from bigearth_prep.collection_file import open_collection, read_collection
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import CLASSES
from bigearth_prep.list_pairs import list_folder, write_pairs
from bigearth_prep.manifest import read_manifest
from bigearth_prep.pictures.contact_sheet import write_contact_sheet
from bigearth_prep.pictures.page import PageConfig, write_page
from bigearth_prep.shard_task import ShardTask, make_shard
from bigearth_prep.statistics import StatisticsTable, published_statistics, write_statistics
from bigearth_prep.verify.source import SourceConfig, compare_with_source
from bigearth_prep.verify.source_sample import SourceFinding
from dinomm_train.config import RunConfig
from dinomm_train.data.index import StoredDataset
from dinomm_train.data.inputs import InputScaling
from dinomm_train.errors import TrainError
from dinomm_train.evaluation.pipeline import open_splits
from dinomm_train.stop_request import StopRequest
from dinomm_train.trainer import LaunchOptions, pretrain
from tests.archive_fixture import build, problems_of, tree_bytes
from tests.checkpoint_fixture import TINY_RUN
from tests.collection_fixture import (
    MadeCollection,
    build_tabled,
    listed_collection,
    stacked_collection,
    tabled_request,
    with_toml,
    write_tif,
)

REAL = Path(__file__).parents[3] / "shared" / "real"


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> MadeCollection:
    """Eight labelled pairs in three splits; not to be changed."""
    return stacked_collection(tmp_path_factory.mktemp("stacks"))


def rejected(dataset: Path) -> dict[str, str]:
    rows = pq.read_table(dataset / "rejected.parquet").to_pylist()
    return {row["key"]: f"{row['reason']}: {row['detail']}" for row in rows}


def samples_of(dataset: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every sample of every split, by key."""
    splits = bigearth_prep.open_dataset(dataset, "train").card.splits
    views = [bigearth_prep.open_dataset(dataset, split) for split in splits]
    return {view[n]["key"]: view[n] for view in views for n in range(len(view))}


def by_rasterio(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        pixels: np.ndarray = file.read()
    return pixels


def test_stacks_are_stored_as_rasterio_reads_them(stacks: MadeCollection, tmp_path: Path) -> None:
    summary = build_tabled(stacks, tmp_path / "out", shard_format="both")
    assert problems_of(tmp_path / "out") == []
    samples = samples_of(tmp_path / "out")
    assert len(samples) == 8
    for row in stacks.rows:
        sample = samples[row["key"]]
        for sensor in ("s2", "s1"):
            expected = by_rasterio(stacks.folder / row[sensor][0])
            assert sample[sensor].dtype == expected.dtype
            assert np.array_equal(sample[sensor], expected)
        names = {"forest", "water"} & set(row["labels"])
        assert sample["labels"].tolist() == ["forest" in names, "water" in names]
    card = summary.card
    assert card.channels == ("blue", "green", "red", "nir", "VH", "VV")
    assert (card.sensors["s2"].dtype, card.sensors["s1"].unit) == ("int16", "dB")
    assert (card.patch.size_px, card.patch.resolution_m) == (64, 10.0)
    assert card.source["archive"] == "Stacks"
    assert [file["role"] for file in card.source["files"]] == ["pairs", "collection"]
    assert StoredDataset.open(tmp_path / "out").split("train").arrays["s2"].dtype == np.int16
    with xarray.open_zarr(tmp_path / "out" / "train.zarr") as group:
        assert group["s2"].dtype == np.int16
        assert group["class"].values.tolist() == ["forest", "water"]
        assert np.array_equal(group["s2"].values[0], samples[str(group["key"].values[0])]["s2"])


def test_manifest_rows_say_what_table_and_files_say(stacks: MadeCollection, tmp_path: Path) -> None:
    build_tabled(stacks, tmp_path / "out")
    rows = {row["key"]: row for row in read_manifest(tmp_path / "out").to_pylist()}
    row = rows["pair_003"]
    assert (row["country"], row["s1_name"], row["s1_time"]) == ("Austria", None, None)
    assert f"{row['s2_time']:%Y-%m-%dT%H:%M:%SZ}" == "2020-05-04T10:00:00Z"
    assert (row["epsg"], row["ulx"], row["uly"]) == (32633, 530_000.0, 5_300_000.0)
    assert row["split"] == "test"
    assert rows["pair_000"]["country"] is None


@pytest.mark.parametrize(("scheme", "dtype"), [("zscore", "float32"), ("paper", "uint8")])
@pytest.mark.parametrize("size_px", [None, 100])
def test_every_scheme_computes_its_own_statistics(
    stacks: MadeCollection, tmp_path: Path, scheme: str, dtype: str, size_px: int | None
) -> None:
    summary = build_tabled(stacks, tmp_path / "out", scheme=scheme, size_px=size_px)
    assert problems_of(tmp_path / "out") == []
    assert summary.card.sensors["s2"].dtype == dtype
    assert summary.card.patch.resolution_m == 640 / (size_px or 64)
    train = [row for row in stacks.rows if row["split"] == "train"]
    pixels = np.stack([by_rasterio(stacks.folder / row["s2"][0]) for row in train])
    found = summary.card.normalization
    assert found.source.startswith("computed, exact: every good pair of the train split")
    for index, name in enumerate(("blue", "green", "red", "nir")):
        assert found.parameters[name].mean == pytest.approx(pixels[:, index].mean(), rel=1e-12)
        assert found.parameters[name].std == pytest.approx(pixels[:, index].std(), rel=1e-12)


def test_resampled_signed_integers_are_rounded_and_not_cut_off(
    stacks: MadeCollection, tmp_path: Path
) -> None:
    build_tabled(stacks, tmp_path / "fine", resampling="bilinear", size_px=128, scheme="none")
    build_tabled(stacks, tmp_path / "exact", resampling="bilinear", size_px=128, scheme="zscore")
    fine, exact = samples_of(tmp_path / "fine"), samples_of(tmp_path / "exact")
    card = bigearth_prep.open_dataset(tmp_path / "exact", "train").card.sensors["s2"]
    for key, sample in fine.items():
        scale, offset = (np.array(ends)[:, None, None] for ends in (card.scale, card.offset))
        physical = exact[key]["s2"].astype(np.float64) * scale + offset
        assert np.abs(sample["s2"] - physical).max() <= 0.51
    assert min(sample["s2"].min() for sample in fine.values()) < 0


def test_a_choice_of_bands_reads_nothing_else(stacks: MadeCollection, tmp_path: Path) -> None:
    collection = tabled_request(stacks).collection
    bands = tuple(band for band in collection.bands if band.name in {"nir", "red"})
    without_radar = replace(
        stacks, rows=[{n: v for n, v in row.items() if n != "s1"} for row in stacks.rows]
    )
    table = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(without_radar.rows), table)
    summary = build_tabled(stacks, tmp_path / "out", table, bands=bands, s2=stacks.folder)
    assert summary.card.channels == ("red", "nir")
    expected = by_rasterio(stacks.folder / "optical/000.tif")[2:]
    assert np.array_equal(samples_of(tmp_path / "out")["pair_000"]["s2"], expected)


def test_csv_and_parquet_give_the_same_shards_and_tables(
    stacks: MadeCollection, tmp_path: Path
) -> None:
    for suffix in (".csv", ".parquet"):
        build_tabled(stacks, tmp_path / suffix, stacks.table(suffix))
    text, binary = (tree_bytes(tmp_path / suffix) for suffix in (".csv", ".parquet"))
    differing = {name for name in text | binary if text.get(name) != binary.get(name)}
    assert differing == {"dataset.json", "build.toml"}  # they name the table, and its checksum


def test_no_process_and_two_workers_give_the_same_bytes(
    stacks: MadeCollection, tmp_path: Path
) -> None:
    for workers in (0, 2):
        build_tabled(stacks, tmp_path / str(workers), workers=workers, scheme="percentile")
    assert tree_bytes(tmp_path / "0") == tree_bytes(tmp_path / "2")


def test_an_interrupted_build_goes_on_to_the_same_bytes(
    stacks: MadeCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tabled(stacks, tmp_path / "whole", shard_format="both")
    done: list[str] = []

    def interrupted(task: ShardTask) -> int:
        if len(done) == 3:
            (task.dataset / f"{task.name}.partial").write_bytes(b"half")
            raise KeyboardInterrupt
        done.append(task.name)
        return make_shard(task)

    monkeypatch.setattr(pipeline, "make_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_tabled(stacks, tmp_path / "out", shard_format="both")
    assert not (tmp_path / "out" / "dataset.json").exists()
    monkeypatch.undo()
    build_tabled(stacks, tmp_path / "out", shard_format="both")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "whole")


def test_another_table_or_description_is_another_request(
    stacks: MadeCollection, tmp_path: Path
) -> None:
    build_tabled(stacks, tmp_path / "out")
    assert build_tabled(stacks, tmp_path / "out").was_complete
    other = with_toml(stacks, ("resolution_m = 10", "resolution_m = 5"))
    with pytest.raises(PrepError, match="built from another request: files was"):
        build_tabled(other, tmp_path / "out")
    countries: list[object] = ["Finland"] * len(stacks.rows)
    with pytest.raises(PrepError, match="built from another request"):
        build_tabled(stacks, tmp_path / "out", stacks.table(country=countries))
    stacks.table()


@pytest.mark.parametrize("side_px", [64, 512])
def test_plain_files_of_any_side_take_the_short_road(tmp_path: Path, side_px: int) -> None:
    made = listed_collection(tmp_path / "made", pairs=2, side_px=side_px)
    summary = build_tabled(made, tmp_path / "out", shard_format="both")
    assert summary.files_read == {"strips": 4}
    assert problems_of(tmp_path / "out") == []
    assert summary.card.labels.classes == ()
    for row in made.rows:
        swir, red = (by_rasterio(made.folder / path)[0] for path in row["s2"])
        stored = samples_of(tmp_path / "out")[row["key"]]
        assert np.array_equal(stored["s2"][0], red)
        assert np.array_equal(stored["s2"][1], swir.repeat(2, axis=0).repeat(2, axis=1))
        assert stored["labels"].shape == (0,)
    with xarray.open_zarr(tmp_path / "out" / "train.zarr") as group:
        assert sorted(group.data_vars) == ["key", "s2"]


def test_ssl4eo_s12_goes_from_folders_to_a_dataset(tmp_path: Path) -> None:
    collection = open_collection("ssl4eo-s12")
    root = tmp_path / "root"
    rng = np.random.default_rng(7)
    seasons = {
        "s2c/0000003": (
            "20200323T162931_20200323T163750_T15QXA",
            "20200621T162901_20200621T164746_T15QXA",
        ),
        "s1/0000003": (
            "S1B_IW_GRDH_1SDV_20200329T001515_20200329T001540_031883_03AE27_9BAF",
            "S1A_IW_GRDH_1SDV_20200627T001449_20200627T001514_022212_02A27E_2A09",
        ),
        "s2c/0000009": ("20200924T162929_20200924T164434_T15QXA",),
    }
    for place, names in seasons.items():
        sensor: Sensor = "s2" if place.startswith("s2c") else "s1"
        for name in names:
            for band in (one for one in collection.bands if one.sensor == sensor):
                shape = (1, band.native_px, band.native_px)
                pixels = rng.integers(1, 4000, shape).astype(band.dtype)
                path = root / place / name / f"{collection.files[sensor].names[band.name]}.tif"
                # Each band's corner is off by half of its own pixel, as in the published files.
                corner = (500_000.0 - band.resolution_m / 2, 5_300_000.0 + band.resolution_m / 2)
                write_tif(path, pixels, pitch_m=band.resolution_m, corner=corner)
    write_pairs(list_folder(root, collection), root, root / "pairs.parquet")
    made = MadeCollection(folder=root, toml=str(collection.path and collection.path.read_text()))
    summary = build_tabled(made, tmp_path / "out", root / "pairs.parquet", shard_format="both")
    assert problems_of(tmp_path / "out") == []
    assert rejected(tmp_path / "out") == {
        f"0000009_{seasons['s2c/0000009'][0]}": "missing partner: the table names no s1 file of it"
    }
    samples = samples_of(tmp_path / "out")
    assert sorted(samples) == [f"0000003_{name}" for name in seasons["s2c/0000003"]]
    for optical, radar in zip(seasons["s2c/0000003"], seasons["s1/0000003"], strict=True):
        sample = samples[f"0000003_{optical}"]
        b01 = by_rasterio(root / "s2c/0000003" / optical / "B1.tif")[0]
        b02 = by_rasterio(root / "s2c/0000003" / optical / "B2.tif")[0]
        vv = by_rasterio(root / "s1/0000003" / radar / "VV.tif")[0]
        assert sample["s2"].shape == (13, 264, 264)
        assert np.array_equal(sample["s2"][0], b01.repeat(6, axis=0).repeat(6, axis=1))
        assert np.array_equal(sample["s2"][1], b02)
        assert np.array_equal(sample["s1"][1], vv)
    assert "grids trusted" in summary.card.normalization.order
    rows = read_manifest(tmp_path / "out").to_pylist()
    assert {(row["epsg"], row["ulx"]) for row in rows} == {(32633, 499_995.0)}


def test_files_without_a_place_have_none_in_the_manifest(tmp_path: Path) -> None:
    made = stacked_collection(tmp_path / "made", pairs=4, located=False, grids="trusted")
    build_tabled(made, tmp_path / "out")
    assert problems_of(tmp_path / "out") == []
    rows = read_manifest(tmp_path / "out").to_pylist()
    assert {(row["epsg"], row["ulx"], row["uly"]) for row in rows} == {(None, None, None)}
    refused = with_toml(made, ('"trusted"', '"compared"'))
    with pytest.raises(PrepError, match="4 unreadable file"):
        build_tabled(refused, tmp_path / "refused", scheme="none", statistics=given(made, tmp_path))


def given(made: MadeCollection, folder: Path) -> Path:
    """A table of statistics, so that none need be computed."""
    bands = tabled_request(made).bands
    band = published_statistics("reben").bands["B02"]
    path = folder / "statistics.json"
    table = StatisticsTable(source="made up", bands={one.name: band for one in bands})
    write_statistics(table, path)
    return path


# Faults: each damages one pair, and every other pair must be stored as before.


def remove(made: MadeCollection) -> None:
    (made.folder / "radar/002.tif").unlink()


def shrink(made: MadeCollection) -> None:
    write_tif(made.folder / "radar/002.tif", np.ones((2, 63, 64), np.float32))


def move(made: MadeCollection) -> None:
    path = made.folder / "radar/002.tif"
    write_tif(path, by_rasterio(path), corner=(520_010.0, 5_300_000.0))


def hide(made: MadeCollection) -> None:
    layers = by_rasterio(made.folder / "radar/002.tif")
    layers[1, 5, 5] = np.nan
    write_tif(made.folder / "radar/002.tif", layers, corner=(520_000.0, 5_300_000.0))


def blank(made: MadeCollection) -> None:
    layers = by_rasterio(made.folder / "optical/002.tif")
    layers[0, 5, 5:7] = -9999
    write_tif(made.folder / "optical/002.tif", layers, corner=(520_000.0, 5_300_000.0))


def cut(made: MadeCollection) -> None:
    path = made.folder / "optical/002.tif"
    path.write_bytes(path.read_bytes()[:900])


def retype(made: MadeCollection) -> None:
    layers = by_rasterio(made.folder / "optical/002.tif").astype(np.uint16)
    write_tif(made.folder / "optical/002.tif", layers, corner=(520_000.0, 5_300_000.0))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (remove, "missing band: radar/002.tif"),
        (shrink, "wrong size: VH is 64 x 63 px, its 10 m pitch requires 64 x 64"),
        (move, "grids differ: VH lies on EPSG:32633 from (520010, 5.3e+06)"),
        (hide, "non-finite values: VV: 1 of 4096 px"),
        (blank, "nodata pixels: blue: 2 of 4096 px are -9999"),
        (cut, "unreadable file: optical/002.tif: "),
        (retype, "unreadable file: optical/002.tif holds 4 band(s) of uint16, expected 4 of int16"),
    ],
)
def test_a_bad_pair_is_left_out_with_the_reason(tmp_path: Path, damage: object, why: str) -> None:
    made = stacked_collection(tmp_path / "made", pairs=4)
    assert callable(damage)
    damage(made)
    build_tabled(made, tmp_path / "out", scheme="zscore")
    assert problems_of(tmp_path / "out") == []
    found = rejected(tmp_path / "out")
    assert list(found) == ["pair_002"]
    assert found["pair_002"].startswith(why)
    with pytest.raises(PrepError, match="patch pair_002"):
        build_tabled(made, tmp_path / "fails", fail_on_bad=True, statistics=given(made, tmp_path))


def test_bands_of_another_grid_are_warped_on_request(tmp_path: Path) -> None:
    made = stacked_collection(tmp_path / "made", pairs=4)
    for number in range(4):
        wide = np.random.default_rng(number).normal(-14, 4, (2, 80, 80)).astype(np.float32)
        corner = (500_000.0 + 10_000 * number - 50, 5_300_050.0)
        write_tif(made.folder / f"radar/{number:03}.tif", wide, corner=corner)
    summary = build_tabled(made, tmp_path / "out", align="warp")
    assert problems_of(tmp_path / "out") == []
    assert summary.files_read["warp"] == 8
    expected = by_rasterio(made.folder / "radar/001.tif")[:, 5:69, 5:69]
    assert np.allclose(samples_of(tmp_path / "out")["pair_001"]["s1"], expected, atol=1e-4)


def test_a_wrong_pitch_of_the_description_is_told_with_that_of_the_files(tmp_path: Path) -> None:
    made = stacked_collection(tmp_path / "made", pairs=2)
    wrong = with_toml(made, ("resolution_m = 10", "resolution_m = 20"))
    why = "wrong pitch: blue has a pitch of 10 x 10 m in its file, its resolution_m requires 20 m"
    for align in ("same", "warp"):
        with pytest.raises(PrepError, match=f"train split, and all is bad: pair_00[01]: {why}"):
            build_tabled(wrong, tmp_path / f"computed {align}", align=align)
        with pytest.raises(PrepError, match="no pair is left to store: 2 wrong pitch"):
            build_tabled(wrong, tmp_path / align, align=align, statistics=given(made, tmp_path))
        assert set(rejected(tmp_path / align).values()) == {why}
    trusting = with_toml(wrong, ('"compared"', '"trusted"'))
    assert build_tabled(trusting, tmp_path / "trusted").rejected == {}


def test_what_a_collection_cannot_give_is_refused(stacks: MadeCollection) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "--stats compute": {"statistics": "published"},
        "--size is 513, expected 8 to 512": {"size_px": 513},
        "--pairs and --collection go together": {"pairs": None},
    }
    for message, changes in wrong.items():
        with pytest.raises(ValueError, match=message):
            tabled_request(stacks, **changes)
    trusting = with_toml(stacks, ('"compared"', '"trusted"'))
    with pytest.raises(ValueError, match="--align warp needs the grids"):
        tabled_request(trusting, align="warp")


def test_a_dataset_of_a_table_has_pictures(stacks: MadeCollection, tmp_path: Path) -> None:
    build_tabled(stacks, tmp_path / "out")
    write_contact_sheet(tmp_path / "out", tmp_path / "sheet.png", patches=2)
    write_page(tmp_path / "out", tmp_path / "page.html", PageConfig(sheet_patches=2))
    text = (tmp_path / "page.html").read_text()
    assert "<h2>Patches</h2>" in text
    assert "<h2>Places</h2>" in text


def compared(made: MadeCollection, dataset: Path, **changes: object) -> SourceFinding:
    """What `verify --source` finds in this process."""
    pairs = made.folder / "pairs.parquet"
    fields: dict[str, Any] = {
        "s2": made.folder,
        "s1": made.folder,
        "pairs": pairs,
        "collection": read_collection(made.description),
    }
    with open_cluster(ClusterConfig(workers=0)) as run:
        config = SourceConfig(**(fields | changes))
        return compare_with_source(dataset, config, run, advance=lambda _: None)


@pytest.mark.parametrize("scheme", ["none", "zscore", "percentile", "paper"])
@pytest.mark.parametrize("size_px", [64, 96])
def test_samples_are_as_their_files_decoded_by_a_second_road(
    stacks: MadeCollection, tmp_path: Path, scheme: str, size_px: int
) -> None:
    build_tabled(stacks, tmp_path / "out", scheme=scheme, size_px=size_px)
    found = compared(stacks, tmp_path / "out")
    assert (found.problems, found.compared, found.warped) == ([], 8, 0)


def test_files_and_rows_that_changed_since_the_build_are_found(tmp_path: Path) -> None:
    made = stacked_collection(tmp_path / "made", pairs=4)
    build_tabled(made, tmp_path / "out")
    path = made.folder / "radar/001.tif"
    layers = by_rasterio(path)
    layers[1, 2, 3] += 1
    write_tif(path, layers, corner=(510_000.0, 5_300_000.0))
    (made.folder / "optical/002.tif").unlink()
    made.table(country=["Austria"] * 4, labels=[["water"], [], [], ["water"]])
    found = compared(made, tmp_path / "out").problems
    assert "pair_001: labels are ['forest', 'water'], the table says []" in found
    assert "pair_000: country is None, the table says Austria" in found
    assert any(
        "pair_001: VV differs in 1 of 4096 px, first in row 2, column 3" in one for one in found
    )
    assert sum("pair_002: unreadable file: optical/002.tif" in one for one in found) == 4
    assert len(found) == 1 + 2 + 1 + 4
    made.table()


def test_listed_and_trusted_files_are_compared_too(tmp_path: Path) -> None:
    listed = listed_collection(tmp_path / "listed", pairs=2)
    build_tabled(listed, tmp_path / "one")
    assert compared(listed, tmp_path / "one") == SourceFinding(compared=2)
    placeless = stacked_collection(tmp_path / "made", pairs=4, located=False, grids="trusted")
    build_tabled(placeless, tmp_path / "two")
    assert compared(placeless, tmp_path / "two") == SourceFinding(compared=4)


def test_a_dataset_is_compared_with_its_own_collection_only(
    stacks: MadeCollection, tmp_path: Path
) -> None:
    build_tabled(stacks, tmp_path / "out")
    other = with_toml(stacks, ("Stacks", "Others"))
    with pytest.raises(PrepError, match=r"compares with Others; .* was made from Stacks"):
        compared(stacks, tmp_path / "out", collection=tabled_request(other).collection)
    with pytest.raises(
        PrepError, match=r"compares with BigEarthNet v1 and BigEarthNet v2; .* Stacks"
    ):
        compared(stacks, tmp_path / "out", pairs=None, collection=None)
    stacks.table()


def test_an_unlabelled_dataset_without_places_trains_but_is_not_evaluated(tmp_path: Path) -> None:
    made = listed_collection(tmp_path / "made", pairs=4)
    build_tabled(made, tmp_path / "out", scheme="zscore")
    dataset = StoredDataset.open(tmp_path / "out")
    assert InputScaling.of(dataset.card).gain.shape == (2,)
    config = replace(
        TINY_RUN,
        sampling=replace(TINY_RUN.sampling, global_batch=2),
        schedule=replace(TINY_RUN.schedule, epochs=1, warmup_epochs=0),
    )
    assert isinstance(config, RunConfig)
    with StopRequest() as stop:
        result = pretrain(tmp_path / "out", tmp_path / "run", config, LaunchOptions(), stop)
    assert result.step == 2
    with pytest.raises(TrainError, match="is unlabelled: its card lists no class"):
        open_splits(dataset)


@pytest.mark.skipif(not REAL.exists(), reason="real patches are not at hand")
def test_real_pairs_through_a_table_are_stored_as_the_archive_stores_them(tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(REAL / "v1")
    build(tmp_path / "archive", tmp_path / "archived", scheme="paper")
    rows = read_manifest(tmp_path / "archived").to_pylist()
    folders = {"s2": "BigEarthNet-v1.0", "s1": "BigEarthNet-S1-v1.0"}
    bands = {"s2": S2_BANDS, "s1": S1_BANDS}
    listed = [
        {name: row[name] for name in ("key", "s1_name", "labels", "split", "s1_time", "s2_time")}
        | {
            sensor: [f"{folders[sensor]}/{name}/{name}_{band.name}.tif" for band in bands[sensor]]
            for sensor, name in (("s2", row["key"]), ("s1", row["s1_name"]))
        }
        for row in rows
    ]
    coarse = ", ".join(
        f'{{ name = "{band.name}", resolution_m = {band.resolution_m:g} }}' for band in S2_BANDS
    )
    toml = f"""
name = "BigEarthNet as a table"
[patch]
side_px = 120
resolution_m = 10
[s2]
unit = "reflectance x 10^4"
dtype = "uint16"
files = "listed"
file_name = "*_{{band}}.tif"
missing = 0
bands = [{coarse}]
[s1]
unit = "dB"
dtype = "float32"
files = "listed"
bands = ["VH", "VV"]
[labels]
nomenclature = "BigEarthNet-19"
classes = {list(CLASSES)}
"""
    made = MadeCollection(folder=tmp_path, toml=toml, rows=listed)
    # All bands are BigEarthNet's own, so that its published statistics may be asked for.
    summary = build_tabled(
        made,
        tmp_path / "tabled",
        s2=REAL / "v1",
        s1=REAL / "v1",
        scheme="paper",
        statistics="published",
        shard_mb=1.0,
    )
    assert set(tabled_request(made).bands) == set(ALL_BANDS)
    assert summary.files_read == {"strips": 4 * 14}
    archived, tabled = (tree_bytes(tmp_path / name) for name in ("archived", "tabled"))
    shards = {name for name in archived if name.endswith((".tar", "manifest.parquet"))}
    assert {name: archived[name] for name in shards} == {name: tabled[name] for name in shards}
