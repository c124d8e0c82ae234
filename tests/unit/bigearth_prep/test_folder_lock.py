"""One holder at a time."""

from pathlib import Path

import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.folder_lock import hold_folder


def test_a_folder_is_held_once_and_free_afterwards(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path, "wait"),
        pytest.raises(PrepError, match=f"{tmp_path} is in use: wait"),
        hold_folder(tmp_path, "wait"),
    ):
        pass
    with hold_folder(tmp_path, "wait"):
        pass
