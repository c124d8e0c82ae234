"""A failure comes back as text, whatever was raised."""

import pickle
from pathlib import Path

import pytest

from bigearth_prep.errors import PrepError
from bigearth_prep.task_failure import TaskFailure, attempt


class WorkerOnlyError(Exception):
    """Can be told of, but not be made again without its arguments."""

    def __init__(self, *, patch: str) -> None:
        super().__init__(patch)
        self.patch = patch

    def __str__(self) -> str:
        return f"{self.patch} is broken"


class SilentError(Exception):
    """Cannot even be told of."""

    def __str__(self) -> str:
        raise RuntimeError


def failure_of(error: Exception) -> TaskFailure:
    """What comes back from another process where a task raised this."""

    def fail(_: int) -> int:
        raise error

    failure = attempt(fail, 1)
    assert isinstance(failure, TaskFailure)
    returned: TaskFailure = pickle.loads(pickle.dumps(failure))
    return returned


def test_a_result_comes_back_as_it_is() -> None:
    assert attempt(str, 1) == "1"


def test_our_errors_keep_their_words_and_their_traceback_is_noted() -> None:
    error = failure_of(PrepError("patch_1: no such file")).as_error()
    assert str(error) == "patch_1: no such file"
    (note,) = error.__notes__
    assert "in fail\n" in note
    assert note.endswith("PrepError: patch_1: no such file\n")


def test_errors_of_the_system_read_as_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "plan.parquet").read_bytes()
    message = str(failure_of(caught.value).as_error())
    assert message.startswith(f"{tmp_path}/plan.parquet: No such file or directory; check")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (WorkerOnlyError(patch="patch_1"), "WorkerOnlyError: patch_1 is broken"),
        (SilentError(), "SilentError: <exception str() failed>"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_whatever_else_is_raised_is_named_with_what_it_says(error: Exception, what: str) -> None:
    error.add_note("at patch patch_1 of train/shard-000000.tar")
    message = str(failure_of(error).as_error())
    assert message.startswith("fail failed in a worker process: ")
    assert f"{what}\nat patch patch_1 of train/shard-000000.tar; -vv" in message
