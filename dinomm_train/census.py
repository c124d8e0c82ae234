"""Who is alive and gets on, as far as the ranks' signs of life tell."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

START_FACTOR = 10
"""Start-up and the first step, which may compile, may take so many times the limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign:
    """What a rank says of itself, about once a second."""

    beat: int
    """Rises with each sign."""

    marks: int
    """Rises whenever the rank has got on with its work."""

    doing: str
    """What it is at."""

    host: str
    """Its machine."""

    is_steady: bool = False
    """Whether its first step is done."""

    end: str | None = None
    """Why it has ended; empty where all went well, None as long as it goes on."""

    def to_text(self) -> str:
        """The sign as it travels."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> "Sign":
        """The sign that `to_text` was called on."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the run cannot go on."""

    message: str
    accused: frozenset[int] = frozenset()
    """Ranks that are at fault, and so may not be there to tell it."""


@dataclass(slots=True)
class _Seen:
    sign: Sign
    beat_s: float


@dataclass(slots=True)
class Census:
    """Keeps when each rank was last heard of, and when some rank last got on."""

    silence_s: float
    """Silence after which a rank counts as gone."""

    limit_s: float
    """Time without progress of any rank after which the run counts as hanging; the longest pause
    that was seen in steady running is added to it."""

    _seen: list[_Seen] = field(default_factory=list)
    _progress_s: float = 0.0
    _longest_s: float = 0.0

    def note(self, now_s: float, signs: Sequence[Sign]) -> None:
        """Take in one sign of each rank, in the order of ranks."""
        if not self._seen:
            self._seen = [_Seen(sign, now_s) for sign in signs]
            self._progress_s = now_s
        is_steady, has_got_on = self._is_steady(), False
        for seen, sign in zip(self._seen, signs, strict=True):
            if sign.beat != seen.sign.beat:
                seen.beat_s = now_s
            has_got_on |= sign.marks != seen.sign.marks
            seen.sign = sign
        if has_got_on:
            if is_steady:
                self._longest_s = max(self._longest_s, now_s - self._progress_s)
            self._progress_s = now_s

    def forgive(self, now_s: float) -> None:
        """Count anew from here: this process itself was not running for a while."""
        self._progress_s = now_s
        for seen in self._seen:
            seen.beat_s = now_s

    def judge(self, now_s: float, *, silence_s: float | None = None) -> Verdict | None:
        """Why the run cannot go on; None as long as it can."""
        for rank, seen in enumerate(self._seen):
            if seen.sign.end:
                return Verdict(f"{_name(rank, seen)} ended: {seen.sign.end}", frozenset({rank}))
        longest = self.silence_s if silence_s is None else silence_s
        return self._judge_silence(now_s, longest) or self._judge_progress(now_s)

    def _judge_silence(self, now_s: float, longest_s: float) -> Verdict | None:
        silent = {
            rank: now_s - seen.beat_s
            for rank, seen in enumerate(self._seen)
            if seen.sign.end is None and now_s - seen.beat_s > longest_s
        }
        if not silent:
            return None
        parts = (
            f"{_name(rank, self._seen[rank])} has not been heard of for {seconds:.0f} s (it was "
            f"{self._seen[rank].sign.doing})"
            for rank, seconds in silent.items()
        )
        message = f"{'; '.join(parts)}: it was killed or stopped, or its machine is gone"
        return Verdict(message, frozenset(silent))

    def _judge_progress(self, now_s: float) -> Verdict | None:
        going = [(rank, seen) for rank, seen in enumerate(self._seen) if seen.sign.end is None]
        if not going:
            return None
        limit_s = self.limit_s + self._longest_s
        # Ranks wait for each other: where one stands still, all soon do. Where one gets on, such
        # as rank 0 with a checkpoint, the others may well wait for it.
        still_s = now_s - self._progress_s
        if still_s <= (limit_s if self._is_steady() else START_FACTOR * limit_s):
            return None
        # Who stopped took the others' progress with it, so that its silence is about as old as the
        # standstill. A rank that is merely slow has given a sign in the second half of it.
        if verdict := self._judge_silence(now_s, still_s / 2):
            return verdict
        places = "; ".join(f"{_name(rank, seen)} is {seen.sign.doing}" for rank, seen in going)
        return Verdict(f"no progress for {still_s:.0f} s: {places}")

    def _is_steady(self) -> bool:
        return all(seen.sign.is_steady for seen in self._seen if seen.sign.end is None)


def _name(rank: int, seen: _Seen) -> str:
    return f"rank {rank} on {seen.sign.host}"
