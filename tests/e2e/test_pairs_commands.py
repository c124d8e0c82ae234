"""Any collection as a user brings it in: processes, exit codes, messages, a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.archive_fixture import tree_bytes
from tests.collection_fixture import MadeCollection, stacked_collection

LISTING = """
[listing]
s2 = "optical/{scene}.tif"
s1 = "radar/{scene}.tif"
key = "scene_{scene}"
"""


def prep(*arguments: str | Path, check: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bigearth_prep", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == check, result.stderr
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeCollection:
    """Sixteen pairs of stacks, one of which has lost its radar file."""
    made = stacked_collection(tmp_path_factory.mktemp("made"), pairs=16)
    (made.folder / "radar/005.tif").unlink()
    made.description.write_text(made.toml + LISTING)
    return made


def test_a_folder_becomes_a_table_a_dataset_and_statistics(
    made: MadeCollection, tmp_path: Path
) -> None:
    toml = made.folder / "collection.toml"
    table = made.folder / "listed.csv"
    listed = prep("list-pairs", made.folder, "--collection", toml, "--out", table)
    assert listed.stdout.splitlines() == [f"{table}: 15 pairs", "without partner: 1 s2"]
    assert "1 patches have no partner and a row of their own: scene_005" in listed.stderr
    source = ("--pairs", table, "--collection", toml)
    planned = prep("build-shards", *source, "--out", tmp_path / "out", "--dry-run", "--json")
    assert json.loads(planned.stdout)["rejected"] == {"missing partner": 1}
    arguments = ("--out", tmp_path / "out", "--normalize", "zscore", "--workers", "0")
    built = prep("build-shards", *source, *arguments)
    assert "has no column split: split by ratio, by key" in built.stderr
    assert "rejected: 1 missing partner" in built.stdout
    assert "whole: 15 samples" in prep("verify", tmp_path / "out").stdout
    again = prep("build-shards", "--config", tmp_path / "out" / "build.toml", *arguments)
    assert "was complete already" in again.stdout
    own = ("--out", tmp_path / "bands.json", "--plot", tmp_path / "bands.png", "--workers", "0")
    prep("stats", *source, *own)
    bands = json.loads((tmp_path / "bands.json").read_text())["bands"]
    assert list(bands) == ["blue", "green", "red", "nir", "VH", "VV"]
    assert (tmp_path / "bands.png").stat().st_size > 1000
    compared = prep("verify", tmp_path / "out", "--source", "--sample", "5").stdout
    assert "5 samples are, pixel for pixel, as the archive has them" in compared


@pytest.mark.slow
def test_a_build_killed_in_the_middle_goes_on_to_the_same_bytes(
    made: MadeCollection, tmp_path: Path
) -> None:
    table, toml = made.table(), made.folder / "collection.toml"

    def arguments(name: str) -> list[str | Path]:
        source: list[str | Path] = [
            "--pairs",
            table,
            "--collection",
            toml,
            "--out",
            tmp_path / name,
        ]
        return ["build-shards", *source, "--normalize", "none", "--shard-mb", "0.01"]

    prep(*arguments("whole"), "--workers", "0")
    command = [sys.executable, "-m", "bigearth_prep", *map(str, arguments("out")), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert not (tmp_path / "out" / "dataset.json").exists()
    prep(*arguments("out"), "--workers", "0")
    assert tree_bytes(tmp_path / "out") == tree_bytes(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--pairs", "TABLE"], 2, "--pairs and --collection go together"),
        ([], 2, "give --s2 and --s1 for BigEarthNet, or --pairs and --collection"),
        (["--pairs", "TABLE", "--collection", "nowhere"], 1, "neither a file nor one of ssl4eo"),
        (["--pairs", "TABLE", "--collection", "TOML", "--bands", "swir"], 1, "unknown band swir"),
        (["--pairs", "TABLE", "--collection", "TOML", "--size", "4"], 2, "expected 8 to 512"),
        (
            ["--pairs", "TABLE", "--collection", "TOML", "--stats", "published"],
            2,
            "only BigEarthNet's bands have published statistics: --stats compute",
        ),
    ],
)
def test_a_wrong_request_is_one_message(
    made: MadeCollection, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"TABLE": str(made.table()), "TOML": str(made.folder / "collection.toml")}
    given = [places.get(text, text) for text in arguments]
    result = prep("build-shards", *given, "--out", tmp_path / "out", "--dry-run", check=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
