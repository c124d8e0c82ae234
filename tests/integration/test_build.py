"""From archive folders to a dataset: contents, faults, resuming, and the contract's rules."""

import json
import shutil
import struct
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.enums import Resampling as GdalResampling

import bigearth_prep
from bigearth_prep import pipeline, shard_task
from bigearth_prep.bands import S2_BANDS, select_bands
from bigearth_prep.card import CARD_NAME, read_card
from bigearth_prep.cluster import ClusterConfig
from bigearth_prep.errors import PrepError
from bigearth_prep.labels import to_official_classes
from bigearth_prep.manifest import MANIFEST_SCHEMA, read_manifest
from bigearth_prep.pairing import TableConfig
from bigearth_prep.pipeline import BuildSummary
from bigearth_prep.shard_task import ReadPair, ShardReader, ShardTask, make_shard
from bigearth_prep.statistics import StatisticsTable, read_statistics
from tests.archive_fixture import build, copy_archive, problems_of, request, tree_bytes

REAL = Path(__file__).parents[3] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="real patches are not at hand")


def rejected(dataset: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(dataset / "rejected.parquet").to_pylist()
    return rows


def all_keys(dataset: Path) -> list[str]:
    keys: list[str] = read_manifest(dataset).column("key").to_pylist()
    return keys


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_every_pair_of_the_archive_is_stored_and_the_dataset_is_whole(
    layout: str, tmp_path: Path, v1_archive: Path, v2_archive: Path
) -> None:
    archive = {"v1": v1_archive, "v2": v2_archive}[layout]
    summary = build(archive, tmp_path / "out")
    assert sum(part.samples for part in summary.card.splits.values()) == 16
    assert summary.card.source["archive"] == f"BigEarthNet {layout}"
    assert problems_of(tmp_path / "out") == []
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"dataset.json", "manifest.parquet", "rejected.parquet", "build.toml"}
    assert ".build" not in names


def test_the_manifest_has_the_contracts_columns_and_stored_order(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "manifest.parquet")
    assert table.schema.equals(MANIFEST_SCHEMA)
    in_tars = []
    for name in dict.fromkeys(table.column("shard").to_pylist()):
        with tarfile.open(tmp_path / "out" / name) as tar:
            in_tars += [
                member.removesuffix(".json") for member in tar.getnames() if member.endswith("json")
            ]
    assert in_tars == table.column("key").to_pylist()


def test_sample_json_says_what_is_known(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out")
    row = read_manifest(tmp_path / "out").to_pylist()[0]
    with tarfile.open(tmp_path / "out" / row["shard"]) as tar:
        member = tar.extractfile(f"{row['key']}.json")
        assert member is not None
        fields = json.load(member)
    for name in ("key", "s1_name", "labels", "split", "country", "epsg"):
        assert fields[name] == row[name]
    west, south, east, north = fields["bounds"]
    assert (west, north) == (row["ulx"], row["uly"])
    assert (east - west, north - south) == (1200, 1200)
    assert fields["s2_time"] == row["s2_time"].strftime("%Y-%m-%dT%H:%M:%SZ")
    assert isinstance(fields["contains_seasonal_snow"], bool)


def test_v1_labels_are_the_jsons_reduced_to_the_official_classes(
    v1_archive: Path, tmp_path: Path
) -> None:
    build(v1_archive, tmp_path / "out")
    for row in read_manifest(tmp_path / "out").to_pylist():
        path = v1_archive / "BigEarthNet-v1.0" / row["key"] / f"{row['key']}_labels_metadata.json"
        fields = json.loads(path.read_text())
        assert row["labels"] == list(to_official_classes(fields["labels"]))
        assert f"{row['s2_time']:%Y-%m-%d %H:%M:%S}" == fields["acquisition_date"]
        assert (row["ulx"], row["uly"]) == (
            fields["coordinates"]["ulx"],
            fields["coordinates"]["uly"],
        )


@pytest.mark.parametrize("scheme", ["paper", "zscore", "percentile", "none"])
@pytest.mark.parametrize("size_px", [120, 128])
def test_every_scheme_and_size_builds_a_whole_dataset(
    v2_archive: Path, tmp_path: Path, scheme: str, size_px: int
) -> None:
    summary = build(v2_archive, tmp_path / "out", scheme=scheme, size_px=size_px)
    assert problems_of(tmp_path / "out") == []
    sample = bigearth_prep.open_dataset(tmp_path / "out", "train")[0]
    assert sample["s2"].shape == (12, size_px, size_px)
    dtypes = {"paper": "uint8", "zscore": "float32", "percentile": "uint8", "none": "uint16"}
    assert sample["s2"].dtype == dtypes[scheme]
    assert summary.card.normalization.scheme == scheme


@pytest.mark.parametrize(("scheme", "tolerance"), [("zscore", 0.01), ("percentile", 40.0)])
def test_the_card_undoes_what_was_stored(
    v2_archive: Path, tmp_path: Path, scheme: str, tolerance: float
) -> None:
    build(v2_archive, tmp_path / "native", scheme="none")
    build(v2_archive, tmp_path / "stored", scheme=scheme)
    native = bigearth_prep.open_dataset(tmp_path / "native", "train")
    stored = bigearth_prep.open_dataset(tmp_path / "stored", "train")
    layout = stored.card.sensors["s2"]
    for index in range(len(native)):
        assert native[index]["key"] == stored[index]["key"]
        for band, (scale, offset) in enumerate(zip(layout.scale, layout.offset, strict=True)):
            physical = stored[index]["s2"][band].astype(np.float64) * scale + offset
            low, high = np.percentile(physical, (5, 95))
            true = native[index]["s2"][band]
            inside = (true > low) & (true < high)
            assert np.abs(physical - true)[inside].max(initial=0) <= tolerance


def test_a_selection_of_bands_of_one_sensor_is_a_dataset(v2_archive: Path, tmp_path: Path) -> None:
    bands = select_bands(["B04", "B03", "B02"])
    summary = build(v2_archive, tmp_path / "out", bands=bands, scheme="none")
    assert problems_of(tmp_path / "out") == []
    assert summary.card.channels == ("B04", "B03", "B02")
    sample = bigearth_prep.open_dataset(tmp_path / "out", "train")[0]
    assert sorted(sample) == ["key", "labels", "s2"]


# Faults: each damages one pair, and every other pair must be stored as before.


def damage_missing_band(s2: Path, _: Path) -> None:
    next(s2.glob("*_B05.tif")).unlink()


def damage_truncated(s2: Path, _: Path) -> None:
    path = next(s2.glob("*_B03.tif"))
    path.write_bytes(path.read_bytes()[:9000])


def damage_empty_file(_: Path, s1: Path) -> None:
    next(s1.glob("*_VV.tif")).write_bytes(b"")


def damage_nan(_: Path, s1: Path) -> None:
    path = next(s1.glob("*_VH.tif"))
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    path.write_bytes(content)


def damage_nodata(s2: Path, _: Path) -> None:
    path = next(s2.glob("*_B08.tif"))
    content = bytearray(path.read_bytes())
    content[-2:] = b"\0\0"
    path.write_bytes(content)


def rewrite(path: Path, pixels: np.ndarray, shift_m: float = 0.0) -> None:
    with rasterio.open(path) as source:
        profile = source.profile
    step = profile["transform"]
    moved = rasterio.Affine(step.a, step.b, step.c + shift_m, step.d, step.e, step.f)
    profile.update(width=pixels.shape[1], height=pixels.shape[0], transform=moved)
    path.unlink()
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)


def damage_size(s2: Path, _: Path) -> None:
    rewrite(next(s2.glob("*_B05.tif")), np.ones((60, 61), np.uint16))


def damage_grid(_: Path, s1: Path) -> None:
    for path in s1.glob("*.tif"):
        with rasterio.open(path) as source:
            pixels = source.read(1)
        rewrite(path, pixels, shift_m=10.0)


FAULTS = {
    "missing band": damage_missing_band,
    "unreadable file": damage_truncated,
    "unreadable file (empty)": damage_empty_file,
    "non-finite values": damage_nan,
    "nodata pixels": damage_nodata,
    "wrong size": damage_size,
    "grids differ": damage_grid,
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_bad_pair_is_a_row_with_its_reason_and_the_rest_is_stored(
    v2_archive: Path, tmp_path: Path, reason: str
) -> None:
    build(v2_archive, tmp_path / "whole")
    victim = read_manifest(tmp_path / "whole").to_pylist()[3]
    archive = copy_archive(v2_archive, tmp_path / "archive")
    (s2,) = (archive / "BigEarthNet-S2").glob(f"*/{victim['key']}")
    (s1,) = (archive / "BigEarthNet-S1").glob(f"*/{victim['s1_name']}")
    FAULTS[reason](s2, s1)

    build(archive, tmp_path / "out")
    rows = rejected(tmp_path / "out")
    assert [(row["key"], row["s1_name"], row["split"]) for row in rows] == [
        (victim["key"], victim["s1_name"], victim["split"])
    ]
    assert rows[0]["reason"] == reason.partition(" (")[0]
    assert rows[0]["detail"]
    assert problems_of(tmp_path / "out") == []
    assert all_keys(tmp_path / "out") == [
        key for key in all_keys(tmp_path / "whole") if key != victim["key"]
    ]
    with pytest.raises(PrepError, match=f"patch {victim['key']}: .*--on-bad skip"):
        build(archive, tmp_path / "fails", fail_on_bad=True)


def test_a_v1_patch_without_its_json_is_a_row_too(v1_archive: Path, tmp_path: Path) -> None:
    archive = copy_archive(v1_archive, tmp_path / "archive")
    victim = min((archive / "BigEarthNet-v1.0").glob("*/*.json"))
    victim.unlink()
    build(archive, tmp_path / "out")
    assert [row["reason"] for row in rejected(tmp_path / "out")] == ["missing metadata"]


@pytest.mark.parametrize(
    "fields",
    [
        {"acquisition_date": "2017-13-45 00:00:00"},
        {"labels": [1, 2]},
        {"labels": "Pastures"},
        {"labels": ["Moon dust"]},
    ],
)
def test_a_v1_json_with_an_odd_value_is_a_row_and_not_a_crash(
    v1_archive: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    archive = copy_archive(v1_archive, tmp_path / "archive")
    victim = min((archive / "BigEarthNet-v1.0").glob("*/*.json"))
    victim.write_text(json.dumps(json.loads(victim.read_text()) | fields))
    build(archive, tmp_path / "out")
    assert [row["reason"] for row in rejected(tmp_path / "out")] == ["missing metadata"]


def test_failing_on_bad_pairs_holds_for_missing_partners_and_for_a_dataset_that_skipped_them(
    v1_archive: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v1_archive, tmp_path / "archive")
    build(archive, tmp_path / "out")
    with pytest.raises(PrepError, match="on_bad was skip, is fail"):
        build(archive, tmp_path / "out", fail_on_bad=True)
    shutil.rmtree(min((archive / "BigEarthNet-v1.0").iterdir()))
    with pytest.raises(PrepError, match="missing partner; --on-bad skip"):
        build(archive, tmp_path / "other", fail_on_bad=True)


def test_a_source_disk_that_goes_away_stops_the_build_instead_of_rejecting_everything(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")

    def unmounting(task: ShardTask) -> int:
        shutil.rmtree(archive / "BigEarthNet-S1", ignore_errors=True)
        return make_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "make_shard", unmounting)
        with pytest.raises(PrepError, match="is gone; see that its disk is mounted"):
            build(archive, tmp_path / "out")
    shutil.copytree(v2_archive / "BigEarthNet-S1", archive / "BigEarthNet-S1")
    build(archive, tmp_path / "out")
    assert rejected(tmp_path / "out") == []


def test_shards_and_counts_keep_the_memory_that_patches_free(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(shard_task, "keep_freed_memory", lambda: kept.append(True))
    build(v2_archive, tmp_path / "out")
    shards = len(list((tmp_path / "out").rglob("*.tar")))
    assert len(kept) == shards > 0
    pipeline.archive_statistics(request(v2_archive), tmp_path / "s", ClusterConfig(workers=0))
    assert len(kept) > shards


def test_statistics_never_come_from_an_earlier_count(v2_archive: Path, tmp_path: Path) -> None:
    out, one_process = tmp_path / "stats.json", ClusterConfig(workers=0)
    bands = select_bands(["B02", "VV"])
    out.mkdir()
    with pytest.raises(OSError, match=r"stats\.json"):
        pipeline.archive_statistics(request(v2_archive, bands=bands), out, one_process)
    out.rmdir()
    table = pipeline.archive_statistics(request(v2_archive), out, one_process)
    assert len(table.bands) == 14
    assert list(tmp_path.iterdir()) == [out]


def test_statistics_of_a_sample_are_those_of_so_many_train_pairs_and_say_so(
    v2_archive: Path, tmp_path: Path
) -> None:
    def statistics(pairs: int | None, **changes: object) -> StatisticsTable:
        return pipeline.archive_statistics(
            request(v2_archive, **changes),
            tmp_path / "stats.json",
            ClusterConfig(workers=0),
            sampled_pairs=pairs,
        )

    exact = statistics(None)
    train = exact.bands["B04"].count // 120**2
    assert exact.source.startswith("computed, exact: every good pair of the train split")
    assert statistics(train) == exact
    sampled = statistics(3)
    assert sampled.bands["B04"].count == 3 * 120**2
    assert sampled.source == (
        f"computed, sampled: 3 of {train} pairs of the train split, drawn by seed 0, native pixels"
    )
    assert read_statistics(tmp_path / "stats.json") == sampled
    assert statistics(3, shard_mb=0.3) == sampled
    reseeded = TableConfig(metadata=request(v2_archive).tables.metadata, seed=1)
    assert statistics(3, tables=reseeded).bands != sampled.bands


def test_an_archive_with_no_usable_pair_writes_its_reasons_and_no_card(
    v2_archive: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    for path in (archive / "BigEarthNet-S1").glob("*/*/*_VV.tif"):
        path.unlink()
    with pytest.raises(PrepError, match="no pair is left to store: 16 missing band"):
        build(archive, tmp_path / "out")
    assert len(rejected(tmp_path / "out")) == 16
    assert not (tmp_path / "out" / CARD_NAME).exists()


def test_empty_folders_are_refused(tmp_path: Path) -> None:
    for name in ("BigEarthNet-S1", "BigEarthNet-S2"):
        (tmp_path / "archive" / name).mkdir(parents=True)
    with pytest.raises(PrepError, match="hold no patch"):
        build(tmp_path / "archive", tmp_path / "out")


# Rules of the output folder.


def interrupted(archive: Path, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that dies when it has finished some shards, with a half-written one lying about."""
    done = 0

    def dying(task: ShardTask) -> int:
        nonlocal done
        if done == after:
            (task.dataset / task.name).parent.mkdir(exist_ok=True)
            (task.dataset / f"{task.name}.01234567.partial").write_bytes(b"half")
            raise KeyboardInterrupt
        done += 1
        return make_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "make_shard", dying)
        with pytest.raises(KeyboardInterrupt):
            build(archive, out)
    assert not (out / CARD_NAME).exists()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_build_goes_on_to_the_same_bytes(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    build(v2_archive, tmp_path / "whole")
    out = tmp_path / "out"
    interrupted(v2_archive, out, after, monkeypatch)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*.tar")}
    assert len(kept) == after
    build(v2_archive, out)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert tree_bytes(out) == tree_bytes(tmp_path / "whole")


@pytest.mark.parametrize("shard_format", ["webdataset", "both"])
def test_a_task_that_was_taken_for_dead_and_its_second_run_do_not_disturb_each_other(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str
) -> None:
    build(v2_archive, tmp_path / "whole", shard_format=shard_format)
    read_pair = shard_task._read_pair
    overtaken: set[str] = set()

    def overtaken_once(reader: ShardReader, row: dict[str, Any]) -> ReadPair:
        pair = read_pair(reader, row)
        if reader.task.name not in overtaken:
            overtaken.add(reader.task.name)
            make_shard(reader.task)
        return pair

    monkeypatch.setattr(shard_task, "_read_pair", overtaken_once)
    build(v2_archive, tmp_path / "out", shard_format=shard_format)
    assert len(overtaken) > 3
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "whole")


@pytest.mark.parametrize("statistics", ["published", "compute"])
def test_a_new_start_counts_tries_anew_and_says_where_the_last_one_died(
    v2_archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    statistics: str,
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "open_cluster", lambda _: sys.exit())
        with pytest.raises(SystemExit):
            build(v2_archive, out, statistics=statistics)
    keys = pq.ParquetFile(out / ".build" / "plan.parquet").read_row_group(1).column("key")
    crumbs = out / ".build" / "train" / "shard-000001.at"
    crumbs.parent.mkdir(exist_ok=True)
    crumbs.write_bytes(struct.pack("<3q", 0, 1, 2))
    with caplog.at_level("INFO"):
        build(v2_archive, out, statistics=statistics)
    said = [record.message for record in caplog.records if "killed" in record.message]
    assert said == [f"an earlier start was killed at patch {keys[2]} of train/shard-000001.tar"]


def test_an_error_that_no_one_foresaw_notes_the_patch_and_its_shard(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def third_breaks(reader: ShardReader, row: dict[str, Any]) -> ReadPair:
        begun.append(f"at patch {row['key']} of {reader.task.name}")
        if len(begun) == 3:
            raise ZeroDivisionError
        return read_pair(reader, row)

    read_pair = shard_task._read_pair
    monkeypatch.setattr(shard_task, "_read_pair", third_breaks)
    with pytest.raises(ZeroDivisionError) as caught:
        build(v2_archive, tmp_path / "out")
    assert caught.value.__notes__ == begun[-1:]


def test_a_finished_shard_that_was_damaged_is_made_again(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(v2_archive, tmp_path / "whole")
    out = tmp_path / "out"
    interrupted(v2_archive, out, 2, monkeypatch)
    victim = min(out.glob("*/*.tar"))
    content = bytearray(victim.read_bytes())
    content[5000] ^= 1
    victim.write_bytes(content)
    build(v2_archive, out)
    assert tree_bytes(out) == tree_bytes(tmp_path / "whole")


def test_a_second_build_does_nothing_and_another_request_is_refused_with_its_difference(
    v2_archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build(v2_archive, out)
    before = tree_bytes(out)
    assert build(v2_archive, out).was_complete
    with pytest.raises(PrepError, match="normalize was paper, is none"):
        build(v2_archive, out, scheme="none")
    assert tree_bytes(out) == before


def test_a_changed_archive_does_not_pass_for_the_one_that_was_built(
    v2_archive: Path, tmp_path: Path
) -> None:
    archive = copy_archive(v2_archive, tmp_path / "archive")
    build(archive, tmp_path / "out")
    shutil.rmtree(min((archive / "BigEarthNet-S2").glob("*/*")))
    with pytest.raises(PrepError, match="pairs was 16, is 15"):
        build(archive, tmp_path / "out")


def test_overwrite_replaces_the_dataset_by_the_new_one(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out")
    build(v2_archive, tmp_path / "out", scheme="none", overwrite=True)
    build(v2_archive, tmp_path / "fresh", scheme="none")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "fresh"}


@pytest.mark.parametrize("killed_at", ["rename out", "rename in", "drop the build folder"])
def test_an_overwrite_killed_while_it_is_published_is_finished_by_the_next_start(
    v2_archive: Path, tmp_path: Path, killed_at: str
) -> None:
    out, new, old = (tmp_path / name for name in ("out", "out.overwrite", "out.replaced"))
    build(v2_archive, out)
    build(v2_archive, tmp_path / "fresh", scheme="none")
    shutil.copytree(tmp_path / "fresh", new)
    (new / ".build").mkdir()
    source = json.dumps(read_card(new).source)
    (new / ".build" / "source.json").write_text(source)
    if killed_at != "rename out":
        out.rename(old)
    if killed_at == "drop the build folder":
        new.rename(out)
    build(v2_archive, out, scheme="none", overwrite=killed_at == "rename out")
    assert tree_bytes(out) == tree_bytes(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "fresh"}


def test_a_running_build_is_not_touched_by_another_with_overwrite(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def disturbed(task: ShardTask) -> int:
        pairs = make_shard(task)
        with pytest.raises(PrepError, match="another build is writing"):
            build(v2_archive, out, scheme="none", overwrite=True)
        return pairs

    monkeypatch.setattr(pipeline, "make_shard", disturbed)
    build(v2_archive, out)
    assert problems_of(out) == []


def test_a_finished_dataset_that_lost_a_file_is_not_called_complete(
    v2_archive: Path, tmp_path: Path
) -> None:
    build(v2_archive, tmp_path / "out")
    (tmp_path / "out" / "manifest.parquet").unlink()
    with pytest.raises(PrepError, match=r"damaged: manifest\.parquet"):
        build(v2_archive, tmp_path / "out")
    build(v2_archive, tmp_path / "out", overwrite=True)
    assert problems_of(tmp_path / "out") == []


def test_a_failing_overwrite_leaves_the_old_dataset_alone(
    v2_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(v2_archive, tmp_path / "out")
    before = tree_bytes(tmp_path / "out")

    def failing(_: object) -> int:
        raise PrepError("no")

    monkeypatch.setattr(pipeline, "make_shard", failing)
    with pytest.raises(PrepError):
        build(v2_archive, tmp_path / "out", scheme="none", overwrite=True)
    assert tree_bytes(tmp_path / "out") == before


def test_a_folder_with_other_things_in_it_is_not_touched(v2_archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(PrepError, match="not empty"):
            build(v2_archive, out, overwrite=overwrite)
    assert tree_bytes(out) == {"thesis.tex": b"years of work"}


def test_the_options_used_stand_beside_the_dataset(v2_archive: Path, tmp_path: Path) -> None:
    build(v2_archive, tmp_path / "out", scheme="zscore", dtype="float16")
    options = tomllib.loads((tmp_path / "out" / "build.toml").read_text())
    assert (options["normalize"], options["dtype"], options["size"]) == ("zscore", "float16", "120")


def test_computed_statistics_are_those_of_the_train_pixels(
    v2_archive: Path, tmp_path: Path
) -> None:
    summary = build(v2_archive, tmp_path / "out", scheme="zscore", statistics="compute")
    pixels = []
    for row in read_manifest(tmp_path / "out").to_pylist():
        if row["split"] == "train":
            (path,) = (v2_archive / "BigEarthNet-S2").glob(f"*/{row['key']}/*_B05.tif")
            with rasterio.open(path) as source:
                pixels.append(source.read(1))
    found = summary.card.normalization.parameters["B05"]
    assert found.mean == pytest.approx(np.mean(pixels), rel=1e-12)
    assert found.std == pytest.approx(np.std(pixels), rel=1e-12)


# Real patches.


@pytest.fixture(scope="module")
def real_build(tmp_path_factory: pytest.TempPathFactory) -> BuildSummary:
    if not REAL.exists():
        pytest.skip("real patches are not at hand")
    link = tmp_path_factory.mktemp("real")
    (link / "archive").symlink_to(REAL / "v1")
    return build(link / "archive", link / "out", scheme="none")


def test_real_ten_metre_pixels_are_rasterios_own(real_build: BuildSummary) -> None:
    samples = bigearth_prep.open_dataset(real_build.dataset, "train")
    assert len(samples) == 4
    for sample in samples:  # type: ignore[attr-defined]
        folder = REAL / "v1" / "BigEarthNet-v1.0" / sample["key"]
        for band, found in zip(S2_BANDS, sample["s2"], strict=True):
            with rasterio.open(folder / f"{sample['key']}_{band.name}.tif") as source:
                expected = source.read(1, out_shape=(120, 120), resampling=GdalResampling.nearest)
            assert np.array_equal(found, expected), band.name


def test_real_radar_keeps_its_decimals_and_real_labels_their_meaning(
    real_build: BuildSummary,
) -> None:
    samples = bigearth_prep.open_dataset(real_build.dataset, "train")
    for row, sample in zip(samples.manifest.to_pylist(), samples, strict=True):  # type: ignore[call-overload]
        folder = REAL / "v1" / "BigEarthNet-S1-v1.0" / row["s1_name"]
        for name, found in zip(("VH", "VV"), sample["s1"], strict=True):
            with rasterio.open(folder / f"{row['s1_name']}_{name}.tif") as source:
                assert np.array_equal(found, source.read(1))
        assert (sample["s1"] % 1 != 0).any()
        fields = json.loads(
            (
                REAL / "v1" / "BigEarthNet-v1.0" / row["key"] / f"{row['key']}_labels_metadata.json"
            ).read_text()
        )
        assert row["labels"] == list(to_official_classes(fields["labels"]))


@needs_real
@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_real_coarse_bands_equal_an_independent_resampling(tmp_path: Path, method: str) -> None:
    (tmp_path / "archive").symlink_to(REAL / "v1")
    build(tmp_path / "archive", tmp_path / "out", scheme="none", resampling=method)
    for sample in bigearth_prep.open_dataset(tmp_path / "out", "train"):  # type: ignore[attr-defined]
        folder = REAL / "v1" / "BigEarthNet-v1.0" / sample["key"]
        for band, found in zip(S2_BANDS, sample["s2"], strict=True):
            with rasterio.open(folder / f"{sample['key']}_{band.name}.tif") as source:
                pixels = source.read(1)
            if method == "bilinear":
                expected = plain_bilinear(pixels, 120)
                assert np.abs(found - expected).max() <= 0.51, band.name
            elif band.resolution_m == 10:
                assert np.array_equal(found, pixels)


def plain_bilinear(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """Two one-dimensional interpolations between pixel centres, borders repeated."""
    side = pixels.shape[0]
    places = (np.arange(size_px) + 0.5) * side / size_px - 0.5
    rows = np.stack([np.interp(places, np.arange(side), row) for row in pixels.astype(float)])
    return np.stack([np.interp(places, np.arange(side), column) for column in rows.T]).T


@needs_real
def test_real_v2_orphans_are_rejected_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(REAL / "v2")
    with pytest.raises(PrepError, match="2 missing partner"):
        build(tmp_path / "archive", tmp_path / "out")
    assert [row["reason"] for row in rejected(tmp_path / "out")] == ["missing partner"] * 2


def test_a_card_reads_back_as_it_was_written(v2_archive: Path, tmp_path: Path) -> None:
    summary = build(v2_archive, tmp_path / "out")
    assert read_card(tmp_path / "out") == summary.card
