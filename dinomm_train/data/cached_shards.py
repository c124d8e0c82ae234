"""Shards through a cache: fetched ahead in the order of need, and kept until they are read."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager

from bigearth_prep.card import ShardCard
from dinomm_train.data.download import ExpectedFile
from dinomm_train.data.shard_cache import ShardCache
from dinomm_train.data.shard_file import ShardFile, ShardUses, say_nothing
from dinomm_train.errors import TrainError

PATIENCE_S = 240.0
"""Longer than a source may take to fail, and shorter than a run may stand still by default."""

_FETCHING_THREADS = 4
_LOOK_S = 5.0
_WARN_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class CachedShards:
    """What a plan expects is fetched ahead and stays; any other shard comes when it is opened."""

    def __init__(
        self, cache: ShardCache, *, spare: int, kept_in: str = "", patience_s: float = PATIENCE_S
    ) -> None:
        """Open a dataset's shards through a cache.

        Args:
            cache: Fetches and keeps them.
            spare: Bytes left to shards that no plan expects, such as those of held-out patches.
            kept_in: The cache's place, in words.
            patience_s: How long a reader waits while nothing of any shard comes, in seconds.
        """
        self.cache = cache
        self.kept_in = kept_in or str(cache.folder)
        self.spare = spare
        self.on_progress: Callable[[], None] = say_nothing
        self._patience_s = patience_s
        self._expected: dict[str, Future[ShardFile]] = {}
        self._lock = threading.Lock()

    @property
    def room(self) -> int:
        """Bytes of expected shards that can be held at once."""
        return self.cache.limit - self.spare

    def holds(self, shard: ShardCard) -> bool:
        """Whether the shard is there already."""
        return self.cache.holds(_file_of(shard))

    def open(self, shard: ShardCard) -> ShardFile:
        """The shard, open for reading; waits until it is there.

        Raises:
            TrainError: it cannot be had.
        """
        with self._lock:
            expected = self._expected.get(shard.name)
        if expected is not None:
            return self._wait_for(expected, shard)
        if self.holds(shard):
            return self.cache.get(_file_of(shard))
        with self._fetch_now(shard) as fetch:
            return self._wait_for(fetch, shard)

    @contextmanager
    def expect(self, uses: ShardUses) -> Iterator[Callable[[int], None]]:
        """Fetches these shards ahead for the time of the block; is told each step that is read.

        A shard stays until the step after its last one is read. By then the other ranks of a run
        have read that last step too: steps keep time with each other. Released earlier, it could
        make room for later shards that fill the cache while a slower rank still has to fetch it.
        """
        turns = _Turns()
        pool = ThreadPoolExecutor(_FETCHING_THREADS, thread_name_prefix="fetch-ahead")
        fetches = {
            shard.name: pool.submit(self._fetch_in_turn, turns, number, shard)
            for number, shard in enumerate(uses.shards)
        }
        with self._lock:
            self._expected = fetches
        last_steps = dict(zip(fetches, uses.last_steps.tolist(), strict=True))

        def was_read(step: int) -> None:
            with self._lock:
                over = [name for name in fetches if last_steps[name] < step]
                released = [fetches.pop(name) for name in over]
            for fetch in released:
                fetch.add_done_callback(_close_now)

        try:
            yield was_read
            was_read(sys.maxsize)
        finally:
            turns.end()
            pool.shutdown(cancel_futures=True)
            with self._lock:
                self._expected = {}

    @contextmanager
    def _fetch_now(self, shard: ShardCard) -> Iterator[Future[ShardFile]]:
        """A shard that no plan expects on its way, until it is there or the block ends."""
        is_given_up = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="fetch-now") as pool:
            try:
                yield pool.submit(
                    self.cache.get, _file_of(shard), is_wanted=lambda: not is_given_up.is_set()
                )
            finally:
                is_given_up.set()

    def _fetch_in_turn(self, turns: "_Turns", number: int, shard: ShardCard) -> ShardFile:
        # One that is needed later must take no room, nor keep its own, before one needed earlier.
        turns.wait_for(number)
        try:
            return self.cache.get(
                _file_of(shard),
                spare=self.spare,
                has_room=lambda: turns.pass_on(number),
                is_wanted=turns.go_on,
            )
        finally:
            turns.pass_on(number)

    def _wait_for(self, expected: Future[ShardFile], shard: ShardCard) -> ShardFile:
        if not expected.done():
            self._look_until_done(expected, shard)
            self.on_progress()
        return expected.result()

    def _look_until_done(self, expected: Future[ShardFile], shard: ShardCard) -> None:
        look_s = min(_LOOK_S, self._patience_s)
        start_s = last_s = warned_s = time.monotonic()
        here = self.cache.bytes_here()
        while not _is_done_within(expected, look_s):
            self._raise_what_failed()
            now_s = time.monotonic()
            if (came := self.cache.bytes_here()) != here:
                here, last_s = came, now_s
                self.on_progress()
            elif now_s - last_s >= self._patience_s:
                raise TrainError(
                    f"shard {self.cache.source.location}/{shard.name} did not come, and nothing of "
                    f"any other for {now_s - last_s:,.0f} s: the source sends nothing, or "
                    f"{self.cache.folder.parent} is full of shards that other processes read; "
                    "raise --cache-gb, or lower sampling.block_shards"
                )
            if now_s - warned_s >= _WARN_EVERY_S:
                warned_s = now_s
                _log.warning("still waiting for shard %s after %.0f s", shard.name, now_s - start_s)

    def _raise_what_failed(self) -> None:
        """Return where no shard has failed; another's turn may come long after that."""
        with self._lock:
            fetches = list(self._expected.values())
        for fetch in fetches:
            if fetch.done():
                fetch.result()


class _Turns:
    """Lets numbered threads pass one after another, until the end."""

    def __init__(self) -> None:
        self._next = 0
        self._has_ended = False
        self._changed = threading.Condition()

    def wait_for(self, number: int) -> None:
        """Return when all numbers before this one have passed, or none need wait any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or self._next == number)

    def pass_on(self, number: int) -> None:
        """Let the number after this one pass."""
        with self._changed:
            self._next = max(self._next, number + 1)
            self._changed.notify_all()

    def end(self) -> None:
        """Let all pass."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def go_on(self) -> bool:
        """Whether the end has not come."""
        return not self._has_ended


def _is_done_within(fetch: Future[ShardFile], seconds: float) -> bool:
    """Whether it is, cancelled included, which `concurrent.futures.wait` does not tell in time."""
    try:
        fetch.exception(timeout=seconds)
    except TimeoutError:
        return fetch.done()
    except CancelledError:
        return True
    return True


def _close_now(fetch: Future[ShardFile]) -> None:
    """Let the cache have the shard's room: tracebacks of failed attempts may refer to it yet."""
    if not fetch.cancelled() and fetch.exception() is None:
        fetch.result().close()


def _file_of(shard: ShardCard) -> ExpectedFile:
    return ExpectedFile(name=shard.name, bytes=shard.bytes, xxh3_128=shard.xxh3_128)
