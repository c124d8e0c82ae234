"""A run that stands still, or has lost a rank, ends with a word on why instead of waiting on."""

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from dinomm_train.census import Census, Sign, Verdict
from dinomm_train.distributed import Ranks, read_launch
from dinomm_train.errors import TrainError, first_line
from dinomm_train.rendezvous import connect_store
from dinomm_train.stop_request import StoppedEarly

READING = "reading"
"""What waits for shards begins with this word where it says what it does."""

_SILENCE_S = 60.0
_ANSWER = timedelta(seconds=10)
"""How long the store that ranks share may take for an answer."""

_QUICK_BEATS = 5
"""Signs of life missed by a rank whose connection broke: enough to say that it is gone."""

_NEXT_STEP = "The run ends here; the same command goes on from its last checkpoint"

_log = logging.getLogger(__name__)


class HangWatch:
    """One rank's share in the watch: a thread that gives signs of life and looks at the others'.

    It needs no GPU and no collective, and ends the process itself where the main thread cannot:
    in a collective that never returns, on a disk that does not answer.
    """

    def __init__(self, ranks: Ranks, limit_s: float, store: Store | None) -> None:
        self._ranks = ranks
        self._store = store
        # Hundreds of ranks that all ask each second would keep the store busy.
        self._tick_s = max(min(1.0, limit_s / 20), ranks.world / 64)
        self._census = Census(silence_s=min(_SILENCE_S, limit_s), limit_s=limit_s)
        self._host = socket.gethostname()
        self._beat = self._marks = 0
        self.doing = "starting"
        """What the run does since its last mark, in words."""
        self._is_steady = False
        self._end: str | None = None
        self._is_asked = False
        self._answers: queue.Queue[Verdict] = queue.Queue()
        self._is_closing = threading.Event()
        self.before_end: Callable[[], None] = _nothing
        """Called before this process is ended from here: what may still be brought home."""
        self._lost_s: float | None = None
        self._asked_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="hang-watch", daemon=True)
        self._guard = threading.Thread(target=self._run_guard, name="hang-guard", daemon=True)

    def mark(self, doing: str, *, is_steady: bool = False) -> None:
        """Note that the run has got on, and what it does now."""
        self.doing = doing
        self._is_steady |= is_steady
        self._marks += 1

    def note_shards(self) -> None:
        """Note that bytes of shards have come, while they are what the run waits for."""
        if self.doing.startswith(READING):
            self._marks += 1

    def start(self) -> None:
        """Begin to give signs of life and to look at the others'."""
        self._say()
        self._thread.start()
        self._guard.start()

    def close(self, end: str) -> None:
        """Say that this rank ends, and why if something is wrong; give no further sign."""
        self._end = end
        self._is_closing.set()
        for thread in (self._guard, self._thread):
            thread.join(_ANSWER.total_seconds())
        if self._thread.is_alive():
            return  # whoever holds the store has stopped; there is nobody to tell
        try:
            self._say()
        except RuntimeError:
            return  # whoever holds the store is gone; there is nobody to tell
        if end and self._ranks.is_first and self._ranks.world > 1:
            time.sleep(3 * self._tick_s)  # the store may end with this process: let all read it

    def explain(self, error: BaseException) -> str:
        """What has become of the rank to which the connection broke."""
        self._is_asked = True
        try:
            verdict = self._answers.get(timeout=_ANSWER.total_seconds() + 10 * self._tick_s)
        except queue.Empty:
            return f"the connection between ranks broke ({first_line(error)})"
        return verdict.message

    def _run(self) -> None:
        last_s = time.monotonic()
        while not self._is_closing.wait(self._tick_s):
            now_s = time.monotonic()
            if now_s - last_s > 2 * _ANSWER.total_seconds():
                self._census.forgive(now_s)
            last_s = now_s
            verdict = self._look(now_s)
            if verdict is None:
                continue
            if self._is_asked:
                self._answers.put(verdict)
                return
            self._end_process(verdict)

    def _run_guard(self) -> None:
        """Answers for the other thread, which a store that was stopped never answers."""
        while not self._is_closing.wait(self._tick_s):
            asked_s = self._asked_s
            if asked_s is None or time.monotonic() - asked_s < _ANSWER.total_seconds():
                continue
            verdict = self._judge_loss(asked_s, None)
            if verdict is not None and self._is_asked:
                self._answers.put(verdict)
                return
            if verdict is not None:
                self._end_process(verdict)

    def _look(self, now_s: float) -> Verdict | None:
        silence_s = _QUICK_BEATS * self._tick_s if self._is_asked else None
        try:
            self._asked_s = now_s
            self._census.note(now_s, self._exchange())
        except RuntimeError:
            return self._judge_loss(now_s, silence_s)
        finally:
            self._asked_s = None
        self._lost_s = None
        return self._census.judge(now_s, silence_s=silence_s)

    def _judge_loss(self, now_s: float, silence_s: float | None) -> Verdict | None:
        self._lost_s = self._lost_s or now_s
        lost_s = time.monotonic() - self._lost_s
        if lost_s <= (silence_s or self._census.silence_s):
            return None
        return Verdict(
            f"rank 0, or the launcher that holds the ranks together, has not answered for "
            f"{lost_s:.0f} s: it was killed or stopped, or its machine is gone",
            frozenset({0}),
        )

    def _exchange(self) -> list[Sign]:
        own = self._say()
        if self._store is None:
            return [own]
        keys = [_key(rank) for rank in range(self._ranks.world)]
        return [Sign.from_text(text) for text in self._store.multi_get(keys)]

    def _say(self) -> Sign:
        self._beat += 1
        own = Sign(
            beat=self._beat,
            marks=self._marks,
            doing=self.doing,
            host=self._host,
            is_steady=self._is_steady,
            end=self._end,
        )
        if self._store is not None:
            self._store.set(_key(self._ranks.rank), own.to_text())
        return own

    def _end_process(self, verdict: Verdict) -> None:
        speakers = set(range(self._ranks.world)) - verdict.accused
        if self._ranks.rank == min(speakers, default=0):
            _log.error("error: %s. %s", verdict.message, _NEXT_STEP)
        self.before_end()
        logging.shutdown()
        os._exit(1)


@contextmanager
def watch_for_hangs(ranks: Ranks, limit_s: float) -> Iterator[HangWatch]:
    """A watch over this rank and the others, until the block ends; a limit of zero watches nothing.

    Raises:
        TrainError: the store that ranks share cannot be reached, or the connection to another rank
            broke; the message says what became of it.
    """
    watch = _start_watch(ranks, limit_s)
    if not limit_s:
        yield watch
        return
    try:
        yield watch
    except StoppedEarly:
        watch.close("")
        raise
    except BaseException as error:
        message = watch.explain(error) if _is_broken_connection(error) else str(error)
        watch.close(message or type(error).__name__)
        if _is_broken_connection(error):
            raise TrainError(f"{message}. {_NEXT_STEP}") from error
        raise
    watch.close("")


def _start_watch(ranks: Ranks, limit_s: float) -> HangWatch:
    launch = read_launch(os.environ) if ranks.world > 1 else None
    try:
        store = None if launch is None else connect_store(launch, timeout=_ANSWER)
        watch = HangWatch(ranks, limit_s, store)
        if limit_s:
            watch.start()
    except RuntimeError as error:
        if ranks.world == 1:
            raise
        raise TrainError(
            f"rank {ranks.rank}: rank 0, or the launcher that holds the ranks together, does not "
            f"answer any more ({first_line(error)}); look for its messages, and start all "
            "again"
        ) from error
    return watch


def _is_broken_connection(error: BaseException) -> bool:
    # Gloo's errors have no type of their own; they start with the place in its source.
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def _nothing() -> None:
    return


def _key(rank: int) -> str:
    return f"dinomm/sign/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{rank}"
