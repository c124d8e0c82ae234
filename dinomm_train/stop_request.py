"""Signals that ask a run to end: noted at once, obeyed between two steps."""

import logging
import signal
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

_log = logging.getLogger(__name__)


class StopRequest:
    """Notes interrupts (Ctrl-C), terminations and USR1, which Slurm sends before its time limit.

    A second Ctrl-C does not wait: it raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        """The signal received last; zero as long as there was none."""

    def __enter__(self) -> "StopRequest":
        self._before = {one: signal.signal(one, self._note) for one in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
        _log.warning("%s: saving a checkpoint after this step", signal.Signals(number).name)
