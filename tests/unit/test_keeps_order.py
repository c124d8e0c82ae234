"""The demo's last word: every claim about its scores is checked, and a broken one is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "keeps_order.py"

ORDERS = ("linear:random,statistics,checkpoint,supervised", "knn:random,statistics@s2,s1+s2")

Scores = dict[tuple[str, str, str], float]

KEPT: Scores = {
    (sensors, protocol, network): base + step
    for sensors, base in (("s1", 0.40), ("s2", 0.45), ("s1+s2", 0.50))
    for protocol, network, step in (
        ("linear", "random", 0.0),
        ("linear", "statistics", 0.05),
        ("linear", "checkpoint", 0.10),
        ("finetune", "checkpoint", 0.17),
        ("finetune", "supervised", 0.15),
        ("knn", "random", -0.2),
        ("knn", "statistics", -0.1),
    )
}


def _row(
    sensors: str, network: str, protocol: str, score: float, macro_gap: float
) -> dict[str, object]:
    interval = {"mean": score, "spread": None, "low": score - 0.02, "high": score + 0.02}
    return {
        "sensors": sensors,
        "network": network,
        "protocol": protocol,
        "micro_ap": score,
        "macro_ap": score - macro_gap,
        "estimates": {"micro_ap": interval},
    }


def _verdict(scores: Scores, folder: Path, *, trained_gap: float = 0.1) -> tuple[int, str]:
    """Exit code and words; macro lies below micro by 0.1, for the checkpoint by another gap."""
    path = folder / "scores.json"
    rows = [
        _row(sensors, network, protocol, score, trained_gap if network == "checkpoint" else 0.1)
        for (sensors, protocol, network), score in scores.items()
    ]
    path.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(path), *ORDERS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_scores_in_order_pass(tmp_path: Path) -> None:
    code, said = _verdict(KEPT, tmp_path)
    assert code == 0
    assert "FAILS" not in said


@pytest.mark.parametrize(
    ("changed", "score", "failing"),
    [
        (("s1", "linear", "statistics"), 0.39, "random 40.0 < statistics 39.0"),
        # Above, but not further than chance over test patches reaches.
        (("s2", "linear", "checkpoint"), 0.51, "statistics 50.0 < checkpoint 51.0"),
        (("s1+s2", "finetune", "supervised"), 0.55, "checkpoint 60.0 < supervised 55.0"),
        (("s2", "knn", "statistics"), 0.24, "s2, knn: random 25.0 < statistics 24.0"),
        (("s2", "linear", "random"), 0.54, "pretraining gains 1.0 micro"),
        (("s1+s2", "linear", "checkpoint"), 0.54, "both sensors 54.0, the better single one 55.0"),
    ],
)
def test_a_claim_that_fails_is_named(
    changed: tuple[str, str, str], score: float, failing: str, tmp_path: Path
) -> None:
    code, said = _verdict(KEPT | {changed: score}, tmp_path)
    assert code == 1
    assert any(line.startswith("FAILS") and failing in line for line in said.splitlines())


def test_an_order_holds_for_its_sensors_alone(tmp_path: Path) -> None:
    code, _ = _verdict(KEPT | {("s1", "knn", "statistics"): 0.1}, tmp_path)
    assert code == 0


def test_a_gain_of_frequent_classes_alone_is_none(tmp_path: Path) -> None:
    code, said = _verdict(KEPT, tmp_path, trained_gap=0.19)
    assert code == 1
    assert "FAILS     s1: pretraining gains 10.0 micro, 1.0 macro mAP" in said
