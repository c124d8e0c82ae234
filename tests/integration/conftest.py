"""Archives that several integration tests read, and processes that they start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.archive_fixture import make_archive
from tests.run_processes import Forks, forks_in


@pytest.fixture(scope="session")
def v1_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen made-up v1 pairs; not to be changed."""
    return make_archive(tmp_path_factory.mktemp("v1") / "archive", "v1")


@pytest.fixture(scope="session")
def v2_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen made-up v2 pairs; not to be changed."""
    return make_archive(tmp_path_factory.mktemp("v2") / "archive", "v2")


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Starts `dinomm-train` as processes of its own."""
    with forks_in(tmp_path_factory.mktemp("processes")) as started:
        yield started
