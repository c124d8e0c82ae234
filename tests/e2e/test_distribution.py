"""The built distribution, away from the checkout: it holds what it needs, and both commands run."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import bigearth_prep

ROOT = Path(__file__).parents[2]
PACKAGES = ("bigearth_prep", "dinomm_train")


def call(*command: str | Path, folder: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, which so must hold all that is needed too."""
    folder = tmp_path_factory.mktemp("built")
    clean = folder / "checkout"
    call("git", "clone", "--quiet", "--shared", ROOT, clean, folder=folder)
    build = ("-m", "build", "--no-isolation", "--outdir", folder / "dist", clean)
    call(sys.executable, *build, folder=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    listing = call("git", "ls-files", *PACKAGES, folder=ROOT)
    held = zipfile.ZipFile(wheel).namelist()
    assert set(listing.split()) <= set(held)
    assert {Path(name).parts[0].split("-")[0] for name in held} == {*PACKAGES, "bigearth_dinomm"}


@pytest.mark.slow
def test_the_installed_commands_run_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    call(sys.executable, *pip, folder=tmp_path)
    where = call(
        *(sys.executable, "-c", "import bigearth_prep; print(bigearth_prep.__file__)"),
        folder=tmp_path,
        PYTHONPATH=str(site),
    )
    assert Path(where.strip()).is_relative_to(site)

    def command(name: str, *arguments: str) -> str:
        return call(site / "bin" / name, *arguments, folder=tmp_path, PYTHONPATH=str(site))

    for name in ("bigearth-prep", "dinomm-train"):
        assert command(name, "--version").strip() == f"{name}, version {bigearth_prep.__version__}"
    command("bigearth-prep", "make-archive", "archive", "--pairs", "40")
    sources = ("--s2", "archive/BigEarthNet-S2", "--s1", "archive/BigEarthNet-S1")
    tables = ("--metadata", "archive/metadata.parquet", "--workers", "0")
    command("bigearth-prep", "build-shards", *sources, *tables, "--out", "dataset")
    command("bigearth-prep", "inspect", "dataset", "--html", "dataset.html")
    network = ("--set", "model.depth=1", "--set", "model.width=24", "--set", "model.heads=2")
    options = ("--protocol", "knn", "--no-floor", "--out", "scores", *network)
    command("dinomm-train", "evaluate", "random", "dataset", *options)


@pytest.mark.parametrize(
    ("name", "line", "offered"),
    [
        ("bigearth-prep", "build", "build-shards"),
        ("bigearth-prep", "build-shards --normal", "--normalize"),
        ("bigearth-prep", "build-shards --normalize per", "percentile"),
        ("dinomm-train", "pretrain --rec", "--recipe"),
        ("dinomm-train", "pretrain --recipe ", "paper"),
    ],
)
def test_a_shell_completes_commands_options_and_values(name: str, line: str, offered: str) -> None:
    module = name.replace("-", "_")
    words = line.split(" ")
    script = (
        f"import sys; sys.argv[0] = {name!r}; from {module}.cli import main; main()"
        # As the installed command does.
    )
    variables = {
        f"_{name.replace('-', '_').upper()}_COMPLETE": "bash_complete",
        "COMP_WORDS": f"{name} {line}",
        "COMP_CWORD": str(len(words)),
    }
    found = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"plain,{offered}" in found.stdout.split("\n"), found.stderr
