"""Why a task failed, in text: an exception may not survive the way back from its process.

Only a process that knows the same class can read an exception, and Dask's client waits for ever
for some that it cannot read.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bigearth_prep.errors import PrepError
from bigearth_prep.terminal import describe_os_error

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """What a task gives back in place of its result."""

    message: str
    traceback: str
    """As Python prints it."""

    def as_error(self) -> PrepError:
        """An error that says the same; its traceback notes where the task failed."""
        error = PrepError(self.message)
        error.add_note(self.traceback)
        return error


def attempt(function: Callable[[T], R], task: T) -> R | TaskFailure:
    """What the function returns for the task, or why it failed."""
    try:
        return function(task)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is raised where the build ends)
        lines = traceback.format_exception(error)
        return TaskFailure(_message_of(error, function), "".join(lines))


def _message_of(error: Exception, function: Callable[[T], R]) -> str:
    if isinstance(error, PrepError):
        return str(error)
    if isinstance(error, OSError):
        return describe_os_error(error)
    what = "".join(traceback.format_exception_only(error)).strip()
    return f"{function.__name__} failed in a worker process: {what}; -vv shows where"
