"""The file in a run's folder that tells a job script to start the same command again.

Exit codes do not always reach the script: torchrun turns every one of them into 1.
"""

import logging
from pathlib import Path

from dinomm_train.errors import first_line

REQUEUE_NAME = "requeue"

_log = logging.getLogger(__name__)


def ask_for_requeue(run: Path) -> None:
    """Leave word that a signal stopped the run, which is not finished.

    Each rank does before it ends: as soon as one has, launchers end the others. A disk that takes
    no file changes nothing of the exit code, which says the same.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / REQUEUE_NAME).touch()
    except OSError as error:
        _log.warning("%s could not be written: %s", run / REQUEUE_NAME, first_line(error))


def withdraw_requeue(run: Path) -> None:
    """Take back what an earlier invocation asked for."""
    (run / REQUEUE_NAME).unlink(missing_ok=True)
