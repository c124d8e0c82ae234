"""Files from elsewhere: whole and as the card says, or a message that says what went wrong."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import Callback

from bigearth_prep.whole_file import xxh3_128_of
from dinomm_train.errors import TrainError

_POLL_S = 0.02

_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


class FetchStopped(Exception):  # noqa: N818 - not an error: the caller asked for it
    """Nobody needs the file any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryConfig:
    """What is done about a source that fails."""

    attempts: int = 5
    """Times that a file is asked for."""

    pause_s: float = 1.0
    """Seconds before the second attempt; each further pause is twice as long."""

    stall_s: float = 60.0
    """Seconds without a byte after which an attempt is given up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedFile:
    """A file by its path relative to the dataset, and what is known of it."""

    name: str
    bytes: int | None = None
    xxh3_128: str | None = None


class Source:
    """A dataset somewhere that fsspec reaches: a folder, a bucket, a web server."""

    def __init__(self, location: str, retry: RetryConfig | None = None) -> None:
        """Open it.

        Raises:
            TrainError: fsspec does not know the protocol, or lacks the library that speaks it.
        """
        self.location = location.rstrip("/")
        self._retry = retry or RetryConfig()
        try:
            self._files, root = fsspec.url_to_fs(self.location, **self._settings())
        except (ImportError, ValueError) as error:
            raise TrainError(
                f"{location} cannot be opened: {error}. For s3:// install "
                "'bigearth-dinomm[s3]'; for other protocols what fsspec asks for"
            ) from error
        self._root = root.rstrip("/")

    def _settings(self) -> dict[str, Any]:
        if not self.location.startswith(("http://", "https://")):
            return {}
        from aiohttp import ClientTimeout

        # A large file may take long, as long as its bytes keep coming.
        timeout = ClientTimeout(total=None, sock_connect=30, sock_read=self._retry.stall_s)
        return {"client_kwargs": {"timeout": timeout}}

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where the source does not tell.

        Raises:
            TrainError: there is no such file, or the source does not answer.
        """
        try:
            size: int | None = self._files.size(f"{self._root}/{name}")
        except Exception as error:
            raise TrainError(
                f"{self.location}/{name} is missing or cannot be asked for ({_reason(error)}); "
                "check the address and what it holds"
            ) from error
        return size

    def fetch(
        self, file: ExpectedFile, target: Path, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Write the file to this path, trying again when it fails, stalls or is not as expected.

        Raises:
            FetchStopped: it is no longer wanted.
            TrainError: it cannot be had whole.
        """
        reason: str | None = None
        for attempt in range(1, self._retry.attempts + 1):
            reason = self._try(file, target, is_wanted)
            if reason is None:
                return
            _log.warning(
                "%s/%s: %s (attempt %d of %d)",
                self.location,
                file.name,
                reason,
                attempt,
                self._retry.attempts,
            )
            if attempt < self._retry.attempts:
                _pause(self._retry.pause_s * 2 ** (attempt - 1), is_wanted)
        raise TrainError(
            f"{self.location}/{file.name} could not be fetched in {self._retry.attempts} attempts, "
            f"the last: {reason}; check the source, then run the same command again"
        )

    def _try(self, file: ExpectedFile, target: Path, is_wanted: Callable[[], bool]) -> str | None:
        """What went wrong, or None."""
        try:
            self._transfer(f"{self._root}/{file.name}", target, is_wanted)
        except FetchStopped:
            raise
        except (FileNotFoundError, PermissionError) as error:
            raise TrainError(
                f"{self.location}/{file.name} is missing or not readable ({_reason(error)}); check "
                "the address and what it holds"
            ) from error
        except Exception as error:  # every protocol's library has its own
            if getattr(error, "errno", None) in _FULL:
                raise TrainError(
                    f"{target.parent} takes no more ({_reason(error)}) while {file.name} is "
                    "fetched; lower --cache-gb, or name another --cache-dir"
                ) from error
            return _reason(error)
        return _difference(file, target)

    def _transfer(self, path: str, target: Path, is_wanted: Callable[[], bool]) -> None:
        if not isinstance(self._files, AsyncFileSystem):
            self._files.get_file(path, str(target))
            return
        watch = _Watch()
        transfer = asyncio.run_coroutine_threadsafe(
            self._files._get_file(path, str(target), callback=watch),  # noqa: SLF001 - fsspec's interface for asynchronous use
            self._files.loop,
        )
        try:
            _await(transfer, watch, is_wanted, self._retry.stall_s)
        finally:
            transfer.cancel()


class _Watch(Callback):  # type: ignore[misc] # fsspec is untyped
    """Notes when bytes last came."""

    def __init__(self) -> None:
        super().__init__()
        self.last_s = time.monotonic()

    def relative_update(self, inc: int = 1) -> None:
        """More bytes have come."""
        self.last_s = time.monotonic()
        super().relative_update(inc)


def _await(
    transfer: Future[None], watch: _Watch, is_wanted: Callable[[], bool], stall_s: float
) -> None:
    while True:
        try:
            return transfer.result(timeout=_POLL_S)
        except FutureTimeoutError:
            if transfer.done():
                raise
        if not is_wanted():
            raise FetchStopped
        if time.monotonic() - watch.last_s > stall_s:
            raise TimeoutError(f"no byte came for {stall_s:g} s")


def _pause(seconds: float, is_wanted: Callable[[], bool]) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        if not is_wanted():
            raise FetchStopped
        time.sleep(min(left_s, _POLL_S))


def _difference(file: ExpectedFile, target: Path) -> str | None:
    """How the file that came differs from the one expected; None where it does not."""
    found = target.stat().st_size
    if file.bytes is not None and found != file.bytes:
        return f"{found:,} bytes came, expected {file.bytes:,}"
    if file.xxh3_128 is not None and (came := xxh3_128_of(target)) != file.xxh3_128:
        return f"its xxh3_128 is {came}, expected {file.xxh3_128}"
    return None


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
