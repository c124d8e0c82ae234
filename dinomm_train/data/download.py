"""Files from elsewhere: whole and as the card says, or a message that says what went wrong."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import Callback
from fsspec.config import conf

from bigearth_prep.whole_file import xxh3_128_of
from dinomm_train.data.storage_options import RetryConfig
from dinomm_train.errors import TrainError

_POLL_S = 0.02

_CONNECT_S = 30.0

_FULL = (errno.ENOSPC, errno.EDQUOT)

_WEB, _S3 = ("http://", "https://"), "s3://"

_HOPELESS = (401, 403, 404, 410)
"""Answers of web servers that another attempt does not change."""

_log = logging.getLogger(__name__)


_Answer = TypeVar("_Answer")


class FetchStopped(Exception):  # noqa: N818 - not an error: the caller asked for it
    """Nobody needs the file any more."""


class _Different(Exception):  # noqa: N818 - one attempt's, and told as a reason
    """What came is not what was expected."""


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
        if self.location.startswith(_S3):
            self._files.retries = 1

    def _settings(self) -> dict[str, Any]:
        """What the protocol's library is told, so that this module alone is patient and repeats."""
        # A large file may take long, as long as its bytes keep coming.
        if self.location.startswith(_WEB):
            from aiohttp import ClientTimeout

            patience = ClientTimeout(
                total=None, sock_connect=_CONNECT_S, sock_read=self._retry.stall_s
            )
            return {"client_kwargs": _own_settings("http", "client_kwargs") | {"timeout": patience}}
        if self.location.startswith(_S3):
            once = {
                "connect_timeout": _CONNECT_S,
                "read_timeout": self._retry.stall_s,
                "retries": {"total_max_attempts": 1},
            }
            return {
                "config_kwargs": _own_settings("s3", "config_kwargs") | once,
                # Parts that come side by side are held in memory, and tell of their bytes only when
                # all are there.
                "max_concurrency": 1,
            }
        return {}

    def size(self, name: str) -> int | None:
        """Bytes of a file, or None where the source does not tell; asked again as `fetch` does.

        Raises:
            TrainError: there is no such file, or the source does not answer.
        """

        def ask() -> int | None:
            size: int | None = self._files.size(f"{self._root}/{name}")
            return size

        return self._insist(name, ask)

    def fetch(
        self, file: ExpectedFile, target: Path, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Write the file to this path, trying again when it fails, stalls or is not as expected.

        Raises:
            FetchStopped: it is no longer wanted.
            TrainError: it cannot be had whole.
        """

        def transfer() -> None:
            try:
                self._transfer(f"{self._root}/{file.name}", target, is_wanted)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                raise TrainError(
                    f"{target.parent} takes no more ({_reason(error)}) while {file.name} is "
                    "fetched; lower --cache-gb, or name another --cache-dir"
                ) from error
            _require_same(file, target)

        self._insist(file.name, transfer, is_wanted)

    def _insist(
        self,
        name: str,
        attempt: Callable[[], _Answer],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> _Answer:
        """What the attempt returns, made again while it fails."""
        reason = ""
        for number in range(1, self._retry.attempts + 1):
            try:
                return attempt()
            except (FetchStopped, TrainError):
                raise
            except Exception as error:  # noqa: BLE001 - every protocol's library has its own
                reason = self._reason_to_go_on(name, error)
            _log.warning(
                "%s/%s: %s (attempt %d of %d)",
                self.location,
                name,
                reason,
                number,
                self._retry.attempts,
            )
            if number < self._retry.attempts:
                _pause(self._retry.pause_s * 2 ** (number - 1), is_wanted)
        raise TrainError(
            f"{self.location}/{name} could not be fetched in {self._retry.attempts} attempts, "
            f"the last: {reason}; check the source, then run the same command again"
        )

    def _reason_to_go_on(self, name: str, error: Exception) -> str:
        """What went wrong, where another attempt may help.

        Raises:
            TrainError: none will.
        """
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "NoCredentialsError" in kinds:
            raise TrainError(
                f"{self.location}/{name} cannot be asked for without credentials; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or for a bucket that "
                "is open to all FSSPEC_S3_ANON=true"
            ) from error
        if isinstance(error, FileNotFoundError) and self.location.startswith(_WEB):
            # To fsspec a file is missing, whatever kept the server from telling its size.
            cause = error.__cause__
            error = cause if isinstance(cause, Exception) else error
        is_hopeless = getattr(error, "status", None) in _HOPELESS
        if is_hopeless or isinstance(error, FileNotFoundError | PermissionError):
            raise TrainError(
                f"{self.location}/{name} is missing or not readable ({_reason(error)}); check "
                "the address and what it holds"
            ) from error
        return _reason(error)

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
    while not wait([transfer], timeout=_POLL_S).done:
        if not is_wanted():
            raise FetchStopped
        if time.monotonic() - watch.last_s > stall_s:
            raise TimeoutError(f"no byte came for {stall_s:g} s")
    transfer.result()


def _pause(seconds: float, is_wanted: Callable[[], bool]) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        if not is_wanted():
            raise FetchStopped
        time.sleep(min(left_s, _POLL_S))


def _require_same(file: ExpectedFile, target: Path) -> None:
    """Return nothing where the file that came is the one expected.

    Raises:
        _Different: it is not.
    """
    found = target.stat().st_size
    if file.bytes is not None and found != file.bytes:
        raise _Different(f"{found:,} bytes came, expected {file.bytes:,}")
    if file.xxh3_128 is not None and (came := xxh3_128_of(target)) != file.xxh3_128:
        raise _Different(f"its xxh3_128 is {came}, expected {file.xxh3_128}")


def _own_settings(protocol: str, name: str) -> dict[str, Any]:
    """What the user's own configuration of fsspec says."""
    settings: dict[str, Any] = conf.get(protocol, {}).get(name, {})
    return settings


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
