"""Notes of where a task is: kept by the process that dies, gone with the one that ends."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from bigearth_prep.breadcrumbs import TRIES, leave_breadcrumbs, patches_died_at, refuse_deadly
from bigearth_prep.errors import PrepError

KEYS = [f"patch_{number}" for number in range(5)]


def die_at(path: Path, *numbers: int) -> None:
    """What a try leaves behind that noted these numbers and was killed."""
    with leave_breadcrumbs(path) as note:
        for number in numbers:
            note(number)
        left = path.read_bytes()
    path.write_bytes(left)


def test_a_killed_try_leaves_the_last_patch_that_it_noted_and_later_tries_add_theirs(
    tmp_path: Path,
) -> None:
    path = tmp_path / "build" / "shard.at"
    assert patches_died_at(path, KEYS) == []
    die_at(path, 0, 1, 2)
    die_at(path, 0, 1, 2, 3)
    die_at(path)
    assert patches_died_at(path, KEYS) == ["patch_2", "patch_3", "patch_0"]
    assert path.stat().st_size == 8 * 3


@pytest.mark.parametrize("fails", [False, True])
def test_a_try_that_ends_by_itself_leaves_nothing(tmp_path: Path, *, fails: bool) -> None:
    path = tmp_path / "shard.at"
    ends = pytest.raises(PrepError) if fails else nullcontext()
    with ends, leave_breadcrumbs(path) as note:
        note(1)
        if fails:
            raise PrepError("a bad pair")
    assert not path.exists()


def test_a_half_written_note_is_no_try(tmp_path: Path) -> None:
    path = tmp_path / "shard.at"
    die_at(path, 4)
    path.write_bytes(path.read_bytes() + b"\1\0\0")
    assert patches_died_at(path, KEYS) == ["patch_4"]


def test_a_shard_is_refused_after_three_tries_and_one_patch_or_several_tell_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shard.at"
    for number in (2, 2):
        die_at(path, number)
        refuse_deadly(path, "train/shard-000000.tar", KEYS)
    assert TRIES == 3
    die_at(path, 2)
    message = r"^train/shard-000000\.tar has .* 3 times, at patch patch_2; .*--exclude FILE"
    with pytest.raises(PrepError, match=message):
        refuse_deadly(path, "train/shard-000000.tar", KEYS)
    path.unlink()
    for number in (0, 3, 0):
        die_at(path, number)
    with pytest.raises(PrepError, match=r"at patch patch_0 then patch_3; .*fewer --workers"):
        refuse_deadly(path, "train/shard-000000.tar", KEYS)
