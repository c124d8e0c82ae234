"""The file in a run's folder that tells a job script to start the same command again.

Exit codes do not always reach the script: torchrun turns every one of them into 1.
"""

import signal
from pathlib import Path

from bigearth_prep.whole_file import write_text

REQUEUE_NAME = "requeue"


def ask_for_requeue(run: Path, signal_number: int) -> None:
    """Leave word that this signal stopped the run, which has saved and is not finished."""
    write_text(run / REQUEUE_NAME, f"{signal.Signals(signal_number).name}\n")


def withdraw_requeue(run: Path) -> None:
    """Take back what an earlier invocation asked for."""
    (run / REQUEUE_NAME).unlink(missing_ok=True)
