"""A bounded folder of fetched shards, shared by the processes and jobs of one user on a machine.

    FOLDER/dinomm-UID/.lock                          held while room is made
    FOLDER/dinomm-UID/CHECKSUM/train/shard-000000.tar       whole, and as the card says
    FOLDER/dinomm-UID/CHECKSUM/train/shard-000000.tar.lock  held while it is fetched

Every lock is one of the system's on an open file, so that none outlives its process. A shard that
is being read is locked by its readers and stays; of the others those used longest ago go first.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bigearth_prep.whole_file import whole_file
from dinomm_train.data.download import ExpectedFile, FetchStopped, Source
from dinomm_train.data.shard_file import ShardFile
from dinomm_train.errors import TrainError

_POLL_S = 0.05
_FREE_SHARE = 0.9
"""Share of the free space that a cache without a limit may fill."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Resident:
    """A file that takes room."""

    used_s: float
    size: int
    path: Path


class ShardCache:
    """Files of one source, kept in a folder whose size is bounded."""

    def __init__(self, folder: Path, dataset_checksum: str, source: Source, limit: int = 0) -> None:
        """Open it, made if absent.

        Args:
            folder: On a local disk; files of several users and datasets may share it.
            dataset_checksum: Names the dataset's own folder in it.
            source: Where files come from.
            limit: Most bytes that all of this user's files take; zero takes most of what is free.

        Raises:
            TrainError: the folder cannot be written to, locks no files, or is another user's.
        """
        self._root = private_folder(folder)
        self.folder = self._root / dataset_checksum
        self.source = source
        _drop_what_killed_processes_left(self._root)
        self.limit = limit or self._most_of_what_is_free()

    def get(
        self,
        file: ExpectedFile,
        *,
        spare: int = 0,
        has_room: Callable[[], None] = lambda: None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> ShardFile:
        """The file, open and safe from eviction as long as somebody holds what is returned.

        Args:
            file: Which one; its size must be known.
            spare: Bytes of the limit that are left to others.
            has_room: Told once the file is there, or its room is taken and it only has to come.
            is_wanted: Asked now and then; a no ends the wait.

        Raises:
            FetchStopped: it is no longer wanted.
            TrainError: it cannot be had whole, or can never fit.
        """
        path = self.folder / file.name
        found = self._open(path, file)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(_lock_of(path), is_wanted) as lock:
            # Another process may have fetched it meanwhile.
            found = self._open(path, file)
            if found is not None:
                return found
            # A killed process may have left its size there.
            os.ftruncate(lock, 0)
            self._await_room(file, lock, spare, is_wanted)
            has_room()
            return self._fetch(file, path, lock, is_wanted)

    def holds(self, file: ExpectedFile) -> bool:
        """Whether the file is there already."""
        path = self.folder / file.name
        return path.is_file() and path.stat().st_size == file.bytes

    def bytes_here(self) -> int:
        """Bytes of the dataset's shards that have come, of those too that are on their way.

        A look at which they have changed is one at which some came, went to make room, or began
        anew.
        """
        total = 0
        for path in self.folder.rglob("*.tar*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size * (path.suffix != ".lock")
        return total

    def _fetch(
        self,
        file: ExpectedFile,
        path: Path,
        lock: int,
        is_wanted: Callable[[], bool],
    ) -> ShardFile:
        try:
            with whole_file(path) as partial:
                self.source.fetch(file, partial, is_wanted)
                descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
                fetched = ShardFile(path, descriptor)
                # Locked before it appears, so that nobody evicts it before it is read.
                fcntl.flock(descriptor, fcntl.LOCK_SH)
        finally:
            os.ftruncate(lock, 0)
        return fetched

    def _open(self, path: Path, file: ExpectedFile) -> ShardFile | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        found = ShardFile(path, descriptor)
        # Waits for the moment in which somebody evicts it.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        status = os.fstat(descriptor)
        if not status.st_nlink:
            return None
        if status.st_size != file.bytes:
            path.unlink(missing_ok=True)
            return None
        os.utime(descriptor)
        return found

    def _await_room(
        self, file: ExpectedFile, lock: int, spare: int, is_wanted: Callable[[], bool]
    ) -> None:
        assert file.bytes is not None
        limit = self.limit - spare
        if file.bytes > limit:
            raise TrainError(
                f"{file.name} has {file.bytes:,} bytes, more than the {limit:,} that {self._root} "
                "may take; raise --cache-gb"
            )
        while not self._reserve(file.bytes, lock, limit):
            if not is_wanted():
                raise FetchStopped
            time.sleep(_POLL_S)

    def _reserve(self, size: int, lock: int, limit: int) -> bool:
        """Whether there is room, which is the caller's then: its lock file has the file's size."""
        with wait_for_lock(self._root / ".lock"):
            residents = list(_residents(self._root))
            room = limit - sum(one.size for one in residents)
            for one in sorted(residents, key=lambda one: one.used_s):
                if room >= size:
                    break
                if _evict(one.path):
                    room += one.size
            if room < size:
                return False
            os.ftruncate(lock, size)
            return True

    def _most_of_what_is_free(self) -> int:
        held = sum(one.size for one in _residents(self._root))
        return held + int(_FREE_SHARE * shutil.disk_usage(self._root).free)


def private_folder(folder: Path) -> Path:
    """This user's own folder in one that users may share, made if absent.

    Raises:
        TrainError: it cannot be written to, or belongs to another user.
    """
    root = folder / f"dinomm-{os.getuid()}"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid == os.getuid():
            return root
    except OSError as error:
        raise TrainError(
            f"{root} cannot be made ({error.strerror}); name another --cache-dir or --stage-dir"
        ) from error
    raise TrainError(f"{root} belongs to another user; name another --cache-dir or --stage-dir")


@contextmanager
def wait_for_lock(path: Path, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[int]:
    """Holds the lock file for the time of the block; gives its descriptor.

    Raises:
        FetchStopped: it is no longer wanted.
        TrainError: the file system has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(descriptor, path):
            if not is_wanted():
                raise FetchStopped
            time.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _residents(root: Path) -> Iterator[_Resident]:
    """Every file that takes room: whole ones, and by their locks those on their way."""
    for path in root.rglob("*.tar*"):
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.suffix == ".tar" or (path.suffix == ".lock" and status.st_size):
                yield _Resident(used_s=status.st_mtime, size=status.st_size, path=path)


def _drop_what_killed_processes_left(root: Path) -> None:
    for one in _residents(root):
        if one.path.suffix == ".lock":
            _evict(one.path)


def _evict(path: Path) -> bool:
    """Whether the file was nobody's and is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.suffix == ".lock":
            # Its owner was killed while it fetched.
            path.with_suffix(".partial").unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
        else:
            path.unlink(missing_ok=True)
            _log.debug("evicted %s", path)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _try_lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise TrainError(
            f"{path} cannot be locked ({error.strerror}); name a folder on a local disk"
        ) from error
    return True
