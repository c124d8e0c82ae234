"""Signals that ask a run to end: noted whenever they come, obeyed between two steps."""

import signal
from types import FrameType, TracebackType

_HELD = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send, to every process of a job: it stays pending until it is looked for.

Processes started from here (compilers, `scontrol`) inherit that, and so do not die of it either.
"""


def hold_signals() -> None:
    """Let signals of schedulers wait from now on, until a `StopRequest` looks for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


class StoppedEarly(Exception):  # noqa: N818 (nothing is wrong)
    """A signal came before the run was opened; there is nothing to save."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


class StopRequest:
    """Notes interrupts (Ctrl-C), terminations and USR1, which Slurm sends before its time limit.

    A second Ctrl-C does not wait: it raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._number = 0

    @property
    def signal_number(self) -> int:
        """The signal received last; zero as long as there was none."""
        while (pending := signal.sigtimedwait(_HELD, 0)) is not None:
            self._number = pending.si_signo
        return self._number

    def listen(self) -> None:
        """Note signals from now on, instead of dying of them."""
        # Handlers too: threads from before do not hold signals back, and would die of them.
        self._before = {one: signal.signal(one, self._note) for one in (signal.SIGINT, *_HELD)}
        self._held_before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)

    def __enter__(self) -> "StopRequest":
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._held_before)
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        # No word here: a log line may be half written when a signal comes.
        if number == signal.SIGINT and self._number == signal.SIGINT:
            raise KeyboardInterrupt
        self._number = number
