"""`bigearth-prep` as a user runs it: processes, exit codes, messages, signals, a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archive_fixture import make_archive, tree_bytes

REAL = Path(__file__).parents[3] / "shared" / "real"


def prep(*arguments: str | Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bigearth_prep", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if check is not None:
        assert result.returncode == check, result.stderr
    return result


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("v2") / "archive", "v2", pairs=40)


def build_arguments(archive: Path, out: Path) -> list[str | Path]:
    tables: list[str | Path] = [
        part for table in archive.glob("metadata*.parquet") for part in ("--metadata", table)
    ]
    roots: list[str | Path] = [
        "--s2",
        archive / "BigEarthNet-S2",
        "--s1",
        archive / "BigEarthNet-S1",
    ]
    return ["build-shards", *roots, *tables, "--out", out, "--shard-mb", "1"]


def test_help_starts_without_the_heavy_libraries() -> None:
    heavy = "{'dask', 'rasterio', 'cv2', 'pyarrow'}"
    script = f"import sys, bigearth_prep.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
    for command in ("make-archive", "build-shards", "verify", "inspect", "stats"):
        assert "Usage" in prep(command, "--help").stdout
    assert prep("--version").stdout.startswith("bigearth-prep, version ")


def test_one_worker_and_two_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        result = prep(*build_arguments(archive, tmp_path / workers), "--workers", workers)
        assert "Dask dashboard at http" in result.stderr
        assert "pairs: 40 of 40" in result.stderr
    assert tree_bytes(tmp_path / "1") == tree_bytes(tmp_path / "2")
    assert "whole: 40 samples" in prep("verify", tmp_path / "1").stdout


def test_a_report_of_the_cluster_is_written_and_needs_workers(
    archive: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    arguments = [*build_arguments(archive, tmp_path / "out"), "--report", report]
    refused = prep(*arguments, "--workers", "0", check=2)
    assert "--report needs Dask workers" in refused.stderr
    result = prep(*arguments, "--workers", "1")
    assert f"performance report: {report}" in result.stderr
    text = report.read_text()
    assert "<html" in text
    assert "make_shard" in text


def test_zarr_and_tars_hold_the_same_for_any_number_of_workers(
    archive: Path, tmp_path: Path
) -> None:
    for workers in ("0", "2"):
        arguments = build_arguments(archive, tmp_path / workers)
        prep(*arguments, "--workers", workers, "--format", "both")
    assert tree_bytes(tmp_path / "0") == tree_bytes(tmp_path / "2")
    result = prep("verify", tmp_path / "0", "--sample", "2", "--json")
    assert json.loads(result.stdout)["problems"] == []
    assert ", 2 samples read" in prep("verify", tmp_path / "0", "--sample", "2").stdout
    refused = prep(*build_arguments(archive, tmp_path / "0"), "--workers", "0", check=1)
    assert "format was both, is webdataset" in refused.stderr


def _heed_interrupts() -> None:
    """A shell's background job, as a test run may be, starts with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_killed_in_the_middle_goes_on_to_the_same_bytes(
    archive: Path, tmp_path: Path, how: signal.Signals
) -> None:
    # A pair a shard: forty moments to be killed at.
    def arguments(name: str, workers: int) -> list[str | Path]:
        single = ["--shard-mb", "0.25", "--workers", str(workers)]
        return [*build_arguments(archive, tmp_path / name), *single]

    prep(*arguments("whole", 0))
    command = [sys.executable, "-m", "bigearth_prep", *map(str, arguments("out", 1))]
    process = subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 (no thread of ours runs here)
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    assert process.wait(60) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert not (tmp_path / "out" / "dataset.json").exists()
    prep(*arguments("out", 0))
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "whole")


def test_a_full_disk_is_one_message_and_the_next_start_goes_on(
    archive: Path, tmp_path: Path
) -> None:
    prep(*build_arguments(archive, tmp_path / "whole"), "--workers", "0")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        result = prep(*build_arguments(archive, disk / "out"), "--workers", "1", check=1)
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "No space left on device" in last
        assert "Traceback" not in result.stderr
        assert not list(disk.glob("out/*/*.partial"))
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        prep(*build_arguments(archive, disk / "out"), "--workers", "1")
        assert tree_bytes(disk / "out") == tree_bytes(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (["--s2", "/nowhere"], 1, "--s2 /nowhere does not exist"),
        (["--out", "/proc/dataset"], 1, "/proc cannot be written to"),
        (["--bands", "B02,B10"], 1, "unknown band B10"),
        (["--normalize", "percentile", "--stats", "published"], 1, "--stats compute"),
        (["--normalize", "paper", "--resampling", "nearest"], 2, "cubic"),
        (["--dtype", "int7"], 2, "uint8"),
        (["--normalize", "best"], 2, "'best' is not one of"),
        (["--split", "train"], 2, "NAME=FILE"),
        (["--split-ratio", "1,2"], 2, "three shares"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "1"], 1, "does not answer"),
    ],
)
def test_a_fault_is_one_message_and_the_right_exit_code(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: list[str],
    code: int,
    message: str,
) -> None:
    # Dask calls again and again for half a minute.
    monkeypatch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "1s")
    arguments = build_arguments(archive, tmp_path / "out")
    result = prep(*arguments, "--workers", "0", *change, check=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_options_may_stand_in_a_file_and_the_command_line_wins(
    archive: Path, tmp_path: Path
) -> None:
    config = tmp_path / "build.toml"
    config.write_text('normalize = "none"\nshard-mb = 3\nsize = "128"\nworkers = 0\n')
    arguments = build_arguments(archive, tmp_path / "out")
    result = prep(*arguments, "--config", config, "--size", "120", "--json")
    assert json.loads(result.stdout)["rejected"] == {}
    card = json.loads(prep("inspect", tmp_path / "out", "--json").stdout)
    assert (card["normalization"]["scheme"], card["patch"]["size_px"]) == ("none", 120)
    config.write_text('normalise = "none"\n')
    result = prep(*arguments, "--config", config, check=2)
    assert "unknown key 'normalise'; did you mean normalize?" in result.stderr


def test_the_written_options_can_be_used_again(archive: Path, tmp_path: Path) -> None:
    arguments = build_arguments(archive, tmp_path / "one")
    prep(*arguments, "--workers", "0", "--normalize", "zscore")
    again = build_arguments(archive, tmp_path / "two")[:-2]
    prep(*again, "--workers", "0", "--config", tmp_path / "one" / "build.toml")
    assert tree_bytes(tmp_path / "one") == tree_bytes(tmp_path / "two")


def test_statistics_written_by_stats_or_in_a_card_build_what_computed_ones_build(
    archive: Path, tmp_path: Path
) -> None:
    arguments = build_arguments(archive, tmp_path / "computed")
    prep(*arguments, "--workers", "0", "--normalize", "percentile")
    table = tmp_path / "statistics.json"
    source = [part for part in arguments[1:] if part not in {"--shard-mb", "1"}]
    source[source.index("--out") + 1] = table
    prep("stats", *source, "--workers", "0")
    card = tmp_path / "computed" / "dataset.json"
    for name, path in (("read", table), ("alike", card)):
        again = [tmp_path / name if part == tmp_path / "computed" else part for part in arguments]
        prep(*again, "--workers", "0", "--normalize", "percentile", "--stats", path)
        for split in ("train", "validation", "test"):
            assert tree_bytes(tmp_path / "computed" / split) == tree_bytes(tmp_path / name / split)


def test_stats_of_a_dataset_are_json_and_a_picture(archive: Path, tmp_path: Path) -> None:
    prep(*build_arguments(archive, tmp_path / "out"), "--workers", "0")
    report, picture = tmp_path / "stats.json", tmp_path / "stats.png"
    arguments: list[str | Path] = ["--out", report, "--plot", picture, "--sample", "3"]
    result = prep("stats", tmp_path / "out", "--workers", "1", *arguments, "--json")
    fields = json.loads(result.stdout)
    assert fields == json.loads(report.read_text())
    assert set(fields["splits"]) == {"train", "validation", "test"}
    assert fields["splits"]["train"]["B04"]["count"] == 3 * 120 * 120
    assert "sampled: 3 train" in result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "give either DATASET" in prep("stats", check=2).stderr


def test_inspect_prints_the_card_and_draws_a_contact_sheet(archive: Path, tmp_path: Path) -> None:
    prep(*build_arguments(archive, tmp_path / "out"), "--workers", "0")
    sheet = tmp_path / "sheet.png"
    result = prep("inspect", tmp_path / "out", "--preview", sheet, "--patches", "3")
    assert "B8A" in result.stdout
    assert "validation" in result.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG")
    page = tmp_path / "page.html"
    prep("inspect", tmp_path / "out", "--html", page, "--patches", "2", "--sample", "5")
    assert "All pixels of 5 of 40 samples" in page.read_text()
    assert "has no dataset.json" in prep("inspect", tmp_path, check=1).stderr


def test_verify_exits_one_and_lists_what_is_off(archive: Path, tmp_path: Path) -> None:
    prep(*build_arguments(archive, tmp_path / "out"), "--workers", "0")
    next((tmp_path / "out" / "train").glob("*.tar")).unlink()
    result = prep("verify", tmp_path / "out", check=1)
    assert "is missing" in result.stdout
    assert "1 problems" in result.stderr


def test_verify_compares_with_the_archive_where_it_was_or_where_it_is_now(
    archive: Path, tmp_path: Path
) -> None:
    shutil.copytree(archive, tmp_path / "archive")
    prep(*build_arguments(tmp_path / "archive", tmp_path / "out"), "--workers", "0")
    assert "40 samples are, pixel for pixel," in prep("verify", tmp_path / "out", "--source").stdout
    moved = (tmp_path / "archive").rename(tmp_path / "moved")
    refused = prep("verify", tmp_path / "out", "--source", check=1).stderr
    assert "BigEarthNet-S2 does not exist; say with --s2 where it is now" in refused
    roots = ("--s2", moved / "BigEarthNet-S2", "--s1", moved / "BigEarthNet-S1")
    min(moved.glob("BigEarthNet-S2/*/*/*_B8A.tif")).unlink()
    result = prep("verify", tmp_path / "out", *roots, "--json", "--workers", "2", check=1)
    fields = json.loads(result.stdout)
    assert "missing band" in fields["problems"][0]
    assert fields["source"] == {"compared": 39, "warped": 0}
    assert "--s1 is not given" in prep("verify", tmp_path / "out", *roots[:2], check=2).stderr


@pytest.mark.skipif(not REAL.exists(), reason="real tables are not at hand")
def test_a_dry_run_of_the_whole_official_table_reports_every_missing_pair(tmp_path: Path) -> None:
    (tmp_path / "s1").mkdir()
    (tmp_path / "s2").mkdir()
    tables: list[str | Path] = [
        part
        for path in (REAL / "metadata").glob("metadata*.parquet")
        for part in ("--metadata", path)
    ]
    roots: list[str | Path] = [
        "--s1",
        tmp_path / "s1",
        "--s2",
        tmp_path / "s2",
        "--out",
        tmp_path / "out",
    ]
    result = prep("build-shards", *roots, *tables, "--dry-run", "--json", check=1)
    assert json.loads(result.stdout)["rejected"] == {"missing pair": 549_488}
    assert not (tmp_path / "out").exists()
