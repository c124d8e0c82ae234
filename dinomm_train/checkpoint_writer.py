"""Checkpoints written while training goes on: the steps wait only for a copy in host memory."""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from dinomm_train.checkpoint import FOLDER, Checkpoint, clear_leftovers, save_checkpoint
from dinomm_train.config import OutputConfig
from dinomm_train.errors import TrainError, first_line
from dinomm_train.shared_weights import whole

_LAST_S = 60.0
_SLICE_S = 0.5


class CheckpointWriter:
    """Writes the checkpoints of one run in a thread, one after the other.

    Leaving the block waits for the last one. What went wrong in the thread is raised by the next
    `save` or `wait`, and `has_failed` tells it without waiting. As long as a write that is waited
    for gets on, `mark` is called with a word on it: a large one may take longer than a hang.
    """

    def __init__(self, run: Path, output: OutputConfig, mark: Callable[[str], None]) -> None:
        self._run = run
        self._output = output
        self._mark = mark
        self._copies = HostCopies()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None
        self._step = 0
        self._advances = 0
        """Rises as long as the thread gets on."""

    def __enter__(self) -> "CheckpointWriter":
        clear_leftovers(self._run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writing is not None:
            self._wait_and_tell(self._writing)
        self._thread.shutdown()
        if error is None:
            self.wait()

    @property
    def has_failed(self) -> bool:
        """Whether a checkpoint could not be written."""
        writing = self._writing
        return writing is not None and writing.done() and writing.exception() is not None

    def save(self, checkpoint: Checkpoint) -> None:
        """Copy the state and start to write it; the checkpoint before is on disk by then.

        Raises:
            TrainError: the checkpoint before could not be written.
        """
        self.wait()
        held = replace(checkpoint, **self._copies.take(checkpoint.state))
        self._step = checkpoint.step
        self._writing = self._thread.submit(
            save_checkpoint,
            self._run,
            held,
            keep_last=self._output.keep_last,
            keep_every_steps=self._output.keep_every_steps,
            advance=self._advance,
        )

    def wait(self) -> None:
        """Return when the last checkpoint is on disk.

        Raises:
            TrainError: it could not be written.
        """
        if self._writing is None:
            return
        self._wait_and_tell(self._writing)
        try:
            self._writing.result()
        # A full disk is an OSError, or within torch's writer a RuntimeError.
        except (OSError, RuntimeError) as error:
            raise TrainError(
                f"the checkpoint of step {self._step} could not be written to "
                f"{self._run / FOLDER} ({disk_fault(self._run, error)}); make space, then run the "
                "same command again: it goes on from the checkpoint before"
            ) from error
        finally:
            self._writing = None

    def _wait_and_tell(self, writing: Future[Path]) -> None:
        told = -1
        while not wait([writing], timeout=_SLICE_S).done:
            if self._advances != told:
                told = self._advances
                self._mark(f"writing the checkpoint of step {self._step}")

    def _advance(self) -> None:
        self._advances += 1

    def finish(self) -> None:
        """Give the last checkpoint a minute to reach the disk, whatever becomes of it."""
        if self._writing is not None:
            wait([self._writing], timeout=_LAST_S)


def disk_fault(folder: Path, error: Exception) -> str:
    """What went wrong with a write, and what is free there if that can be told."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return first_line(error)
    return (
        f"{first_line(error)}; {free:,} bytes are free, unless a quota on bytes or on files "
        "leaves less"
    )


class HostCopies:
    """Copies nested tensors to host memory, each time into the same buffers.

    Those that ranks share out arrive whole, one after the other; the other ranks `contribute`
    meanwhile. Buffers of a GPU's tensors are pinned, so that all travel at once and are waited for
    once.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Tensor] = {}

    def take(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The same nested dictionaries and lists; tensors hold what they held at this moment."""
        copy = {name: self._copy(value, (name,)) for name, value in state.items()}
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.current_stream().synchronize()
        return copy

    def _copy(self, value: Any, place: tuple[object, ...]) -> Any:  # noqa: ANN401 (any plain value)
        if isinstance(value, Tensor):
            source = whole(value.detach())
            return self._buffer(source, place).copy_(source, non_blocking=True)
        if isinstance(value, Mapping):
            return {key: self._copy(one, (*place, key)) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(one, (*place, index)) for index, one in enumerate(value))
        return value

    def _buffer(self, tensor: Tensor, place: tuple[object, ...]) -> Tensor:
        buffer = self._buffers.get(place)
        if buffer is None or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
            buffer = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._buffers[place] = buffer
        return buffer
