"""Exit 0 if pretraining clearly helped in every row of an evaluation; else say where not, exit 1.

Usage: beats_untrained.py scores.json
"""

import json
import sys
from pathlib import Path

MARGIN = 0.02
"""Least gain in micro and macro average precision that counts as clear."""

MEASURES = ("micro_ap", "macro_ap")


def main() -> int:
    """Compare the checkpoint's rows with those of the same network untrained."""
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]
    scores = {(row["sensors"], row["protocol"], row["network"]): row for row in rows}
    short = 0
    for (sensors, protocol, network), row in scores.items():
        if network != "checkpoint" or protocol == "finetune":
            continue
        floor = scores[sensors, protocol, "random"]
        gains = [row[measure] - floor[measure] for measure in MEASURES]
        clear = min(gains) >= MARGIN
        short += not clear
        points = ", ".join(
            f"{measure.replace('_', ' ')} {100 * gain:+.1f} points"
            for measure, gain in zip(MEASURES, gains, strict=True)
        )
        print(f"{sensors:>6} {protocol:<7} {points}{'' if clear else '  (no clear gain)'}")
    print(f"{short} rows show no clear gain" if short else "pretraining helped in every row")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
