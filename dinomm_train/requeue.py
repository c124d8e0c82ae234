"""The file in a run's folder that tells a job script to start the same command again.

Exit codes do not always reach the script: torchrun turns every one of them into 1.
"""

from pathlib import Path

REQUEUE_NAME = "requeue"


def ask_for_requeue(run: Path) -> None:
    """Leave word that a signal stopped the run, which is not finished.

    Each rank does before it ends: as soon as one has, launchers end the others.
    """
    run.mkdir(parents=True, exist_ok=True)
    (run / REQUEUE_NAME).touch()


def withdraw_requeue(run: Path) -> None:
    """Take back what an earlier invocation asked for."""
    (run / REQUEUE_NAME).unlink(missing_ok=True)
