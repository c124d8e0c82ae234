"""Libraries' folders: below the temporary folder, one's own, unless the user has named others."""

import pwd
import tempfile
from pathlib import Path

import pytest

from bigearth_prep.caches import keep_caches_out_of_home


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_every_library_gets_a_folder_of_ones_own_below_the_temporary_one(temporary: Path) -> None:
    environment: dict[str, str] = {}
    keep_caches_out_of_home(environment)
    folders = {Path(folder).parent for folder in environment.values()}
    (folder,) = folders
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    again: dict[str, str] = {}
    keep_caches_out_of_home(again)
    assert again == environment


def test_a_user_without_a_name_gets_a_home_there_unless_told_of_one(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_such_user(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", no_such_user)
    environment: dict[str, str] = {}
    keep_caches_out_of_home(environment)
    assert Path(environment["HOME"]).is_relative_to(temporary)
    told = {"HOME": "/home/me"}
    keep_caches_out_of_home(told)
    assert told["HOME"] == "/home/me"


def test_what_the_user_named_stays(temporary: Path) -> None:
    environment = {"MPLCONFIGDIR": "/mine"}
    keep_caches_out_of_home(environment)
    assert environment["MPLCONFIGDIR"] == "/mine"
    assert environment["TRITON_CACHE_DIR"].startswith(str(temporary))


@pytest.mark.parametrize("how", ["link", "writable by others", "file"])
def test_a_folder_that_another_could_have_laid_is_not_taken(how: str, temporary: Path) -> None:
    first: dict[str, str] = {}
    keep_caches_out_of_home(first)
    folder = Path(first["DASK_CONFIG"]).parent
    if how == "writable by others":
        folder.chmod(0o777)
    else:
        folder.rmdir()
        if how == "link":
            (temporary / "elsewhere").mkdir()
            folder.symlink_to(temporary / "elsewhere")
        else:
            folder.touch()
    second: dict[str, str] = {}
    keep_caches_out_of_home(second)
    other = Path(second["DASK_CONFIG"]).parent
    assert other != folder
    assert other.stat().st_mode & 0o777 == 0o700
