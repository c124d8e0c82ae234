"""A signal is noted, by this process and none that it starts, and what was before comes back."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dinomm_train.stop_request import StopRequest

HELD = {signal.SIGTERM, signal.SIGUSR1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_does_not_end_the_process(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert stop.signal_number == 0
        os.kill(os.getpid(), number)
        # A thread from before may take it, and hand it on a moment later.
        deadline_s = time.monotonic() + 10
        while not stop.signal_number:
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        assert stop.signal_number == number
        assert stop.signal_number == number


def test_a_second_interrupt_does_not_wait() -> None:
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_process_that_is_started_meanwhile_does_not_die_of_what_schedulers_send() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); print('alive')"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=False).returncode == -signal.SIGTERM
    with StopRequest():
        alive = subprocess.run(command, check=True, capture_output=True, text=True)
    assert alive.stdout == "alive\n"


def test_handlers_and_held_signals_from_before_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    held_before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with StopRequest():
        assert signal.getsignal(signal.SIGUSR1) != before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= HELD
    assert signal.getsignal(signal.SIGUSR1) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == held_before
