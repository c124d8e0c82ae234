"""Every command of the README and the pages does what it says, on made-up data, as it stands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from bigearth_prep.synthetic.archive import ArchiveConfig, write_archive
from tests.doc_blocks import PAGES, ROOT, blocks_of

PATCHES = 40

SMALL = (
    *("model.depth=1", "model.width=24", "model.heads=2", "model.drop_path=0"),
    *("head.hidden=16", "head.bottleneck=8", "head.prototypes=32", "views.crops.local_count=2"),
    *("sampling.global_batch=8", "health.samples=8", "health.knn_every_epochs=0"),
)
"""What makes a pretraining a matter of seconds; it follows the words of the page, and so wins."""

# Under the names of the programs, so that a block needs no other words: the same with fewer
# processes, and with settings that make a pretraining small.
_PROGRAM = """\
#!/bin/bash
words=("$@")
for place in "${{!words[@]}}"; do
    case ${{words[place]}} in --workers | --nproc-per-node | --nworkers) words[place + 1]=2 ;; esac
done
case "$(basename "$0") $*" in
*--workers* | *--scheduler* | *--report*) ;;
"bigearth-prep build-shards"*) words+=(--workers 0) ;;
"dinomm-train pretrain"* | torchrun*"-m dinomm_train pretrain"*)
    words+=({settings} --max-steps 2 --device cpu --threads 1) ;;
esac
exec "{python}" -m {module} "${{words[@]}}"
"""
_MODULES = {
    "bigearth-prep": "bigearth_prep",
    "dinomm-train": "dinomm_train",
    "torchrun": "torch.distributed.run",
    "dask": "dask",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    settings = " ".join(f"--set {setting}" for setting in SMALL)
    for name, module in _MODULES.items():
        script = _PROGRAM.format(python=sys.executable, settings=settings, module=module)
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    for name in ("python", "python3"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def downloads(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives in all their published forms under their published names, a dataset and a run."""
    folder = tmp_path_factory.mktemp("downloads")
    for layout in ("v1", "v2"):
        archive = folder / layout
        write_archive(ArchiveConfig(out=archive, layout=layout, pairs=PATCHES, seed=3))
        for path in archive.iterdir():
            path.rename(folder / path.name)
        archive.rmdir()
    for sensor in ("S1", "S2"):
        name = f"BigEarthNet-{sensor}"
        shutil.make_archive(str(folder / name), "tar", folder, name)
        tar = folder / f"{name}.tar"
        tar.with_name(f"{name}.tar.zst").write_bytes(
            zstandard.ZstdCompressor().compress(tar.read_bytes())
        )
    for name in ("configs", "docker", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    tables = "--metadata metadata.parquet --workers 0"
    archives = "--s2 BigEarthNet-S2 --s1 BigEarthNet-S1"
    run(f"bigearth-prep build-shards {archives} {tables} --out dataset", folder, programs)
    run("dinomm-train pretrain dataset --out run", folder, programs)
    return folder


def run(text: str, folder: Path, programs: Path) -> str:
    """The output of a block of shell, which stops at the first command that fails."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=os.environ
        | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        # Threads that wait for each other burn the cores that others use.
        | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run_in_order(
    page: Path, downloads: Path, programs: Path, tmp_path: Path
) -> None:
    """A page that makes `dataset` or `run` itself does not find them made."""
    blocks = [block for block in blocks_of(page) if block.reason is None]
    folder = tmp_path / "there"
    shutil.copytree(downloads, folder)
    for name in ("dataset", "run"):
        if any(f"--out {name}" in block.text for block in blocks):
            shutil.rmtree(folder / name)
    for block in blocks:
        for name in block.afresh:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        run(block.text, folder, programs)
