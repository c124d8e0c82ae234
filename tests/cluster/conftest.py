"""One Slurm for all tests here, and skipping where there can be none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive_fixture import make_archive
from tests.cluster.slurm import Slurm, missing_programs, run_slurm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = missing_programs()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if missing:
                reason = f"no Slurm can be started here, it needs {', '.join(missing)}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with run_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("v2") / "archive", "v2", pairs=40)
