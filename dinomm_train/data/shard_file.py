"""Open shards: positional reads straight into the caller's memory, never a scan of a tar."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from bigearth_prep.card import ShardCard
from dinomm_train.errors import TrainError

MAX_OPEN_SHARDS = 256
"""Shard files kept open at once; systems commonly allow a process 1,024 open files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardUses:
    """Which shards will be read from, in the order in which each is needed first."""

    shards: tuple[ShardCard, ...]
    """Each once."""

    first_steps: Int64[np.ndarray, " shard"]
    """The first step that reads from each of them."""

    last_steps: Int64[np.ndarray, " shard"]
    """The last step that reads from each of them."""


@runtime_checkable
class ShardStore(Protocol):
    """Where the shards of a dataset come from."""

    @property
    def room(self) -> int | None:
        """Bytes of shards that can be held at once; None where all of them lie there anyway."""
        ...

    @property
    def spare(self) -> int:
        """Bytes that are left beside the room, to shards that no plan expects."""
        ...

    on_progress: Callable[[], None]
    """Called from readers' threads that wait for a shard, whenever something of any has come."""

    @property
    def kept_in(self) -> str:
        """Where shards from elsewhere are kept, in words."""
        ...

    def open(self, shard: ShardCard) -> "ShardFile":
        """The shard, open for reading.

        Raises:
            TrainError: it cannot be had.
        """
        ...

    def expect(self, uses: ShardUses) -> AbstractContextManager[Callable[[int], None]]:
        """Makes ready for these uses in the time of the block; is told each step that is read."""
        ...


class ShardFile:
    """An open shard. It closes when its last user lets go, so no thread loses it while reading.

    Who knows that nobody reads from it any more closes it at once.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path) -> "ShardFile":
        """The shard in this file.

        Raises:
            TrainError: it cannot be opened.
        """
        try:
            return cls(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise TrainError(
                f"shard {path} cannot be opened ({error.strerror}); check that it is there"
            ) from error

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, once; nothing can be read from it any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill these buffers, one after another, from the shard's bytes at this offset.

        Raises:
            TrainError: the shard cannot be read or ends early.
        """
        left = sum(map(len, into))
        while left:
            try:
                count = os.preadv(self._descriptor, into, offset)
            except OSError as error:
                raise TrainError(
                    f"shard {self._path} cannot be read at byte {offset:,} ({error.strerror}); "
                    "check the disk, then run the same command again"
                ) from error
            if not count:
                raise TrainError(
                    f"shard {self._path} ends at byte {offset:,}, {left:,} bytes short of a "
                    "sample; copy it again"
                )
            left, offset = left - count, offset + count
            if left:
                into = _behind(into, count)

    def forget_cached(self) -> None:
        """Ask the system to drop what it holds of the file in memory, to measure the disk."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class ShardFolder:
    """Shards read where they lie; those read last stay open."""

    room = None
    spare = 0
    kept_in = ""

    def __init__(self, folder: Path, max_open_shards: int = MAX_OPEN_SHARDS) -> None:
        self._folder = folder
        self._max_open_shards = max_open_shards
        self.on_progress: Callable[[], None] = say_nothing
        self._open_shards: OrderedDict[str, ShardFile] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, shard: ShardCard) -> ShardFile:
        """The shard, open for reading.

        Raises:
            TrainError: it cannot be opened.
        """
        with self._lock:
            file = self._open_shards.pop(shard.name, None)
            file = file or ShardFile.open(self._folder / shard.name)
            self._open_shards[shard.name] = file
            if len(self._open_shards) > self._max_open_shards:
                self._open_shards.popitem(last=False)
            return file

    def expect(self, _: ShardUses) -> AbstractContextManager[Callable[[int], None]]:
        """Nothing to make ready: the shards are there."""
        return nullcontext(lambda _: None)


def say_nothing() -> None:
    """Tell nobody of progress."""


def _behind(buffers: Sequence[memoryview], count: int) -> list[memoryview]:
    """What is left of the buffers once this many bytes are filled."""
    left = []
    for buffer in buffers:
        if count < len(buffer):
            left.append(buffer[count:])
        count = max(0, count - len(buffer))
    return left
