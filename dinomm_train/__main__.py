"""The command `dinomm-train`, and the same as `python -m dinomm_train`, for torchrun and srun."""

import sys

from dinomm_train.stop_request import hold_signals


def main() -> None:
    """Run the command; pretraining holds signals back from here on, before the long imports."""
    words = (word for word in sys.argv[1:] if not word.startswith("-"))
    if next(words, None) == "pretrain":
        hold_signals()
    from dinomm_train.cli import main as run

    run()


if __name__ == "__main__":
    main()
