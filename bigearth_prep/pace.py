"""How fast a count has risen lately, and so how long the rest takes."""

import time
from collections import deque
from collections.abc import Callable

_MARK_EVERY_S = 10.0
_MARKS = 7
"""The last of them are the ends of six spans: a minute, or six units where one takes longer."""

Clock = Callable[[], float]
"""Seconds since some moment."""


class Pace:
    """A count towards a total; the rate is that of the last minute or so, not of all that was.

    What comes once, such as opening, compiling or a first pass over cold files, so does not stay in
    the estimate.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        leaves_out_first: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        """A count from `done` on; its time may begin after what is counted first."""
        self._total, self._done = total, done
        self._leaves_out_first = leaves_out_first
        self._clock = clock
        self._now_s = clock()
        self._begin()

    def add(self, count: int) -> bool:
        """Count so many more; true once in ten seconds, and where all is done."""
        self._done += count
        self._now_s = self._clock()
        is_mark = self._now_s - self._marks[-1][0] >= _MARK_EVERY_S or self._is_done
        if self._leaves_out_first:
            self._leaves_out_first = False
            self._begin()
        elif is_mark:
            self._marks.append((self._now_s, self._done))
        return is_mark

    def describe_count(self) -> str:
        """The count, as `41,201 of 117,100`."""
        return f"{self._done:,} of {self._total:,}"

    def describe_rate(self) -> str:
        """The rate and the time left, as `3.4/s, 6 h 12 min left`; empty while unknown.

        Once all is done, the mean rate of all.
        """
        since_s, before = self._start if self._is_done else self._marks[0]
        rate = (self._done - before) / max(self._now_s - since_s, 1e-9)
        left_s = (self._total - self._done) / rate if rate else 0.0
        return f"{rate:,.1f}/s, {_duration(left_s)} left" if rate else ""

    @property
    def _is_done(self) -> bool:
        return self._done >= self._total

    def _begin(self) -> None:
        self._start = (self._now_s, self._done)
        self._marks = deque([self._start], maxlen=_MARKS)


def _duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `17 min`, `3 h 05 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
