import csv
import dataclasses
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from dinomm_train.evaluation.config import Protocol, SensorSet
from dinomm_train.evaluation.report import (
    Evaluation,
    EvaluationSetup,
    draw_chart,
    to_csv,
    to_markdown,
    to_plain,
    to_summary,
    write_report,
)
from dinomm_train.evaluation.scores import score_probabilities
from dinomm_train.evaluation.sensor_matrix import MatrixRow

CLASSES = ("Water", "Forest, mixed", "Absent")


def row(network: str, sensors: SensorSet, protocol: Protocol, seed: int) -> MatrixRow:
    rng = np.random.default_rng(seed)
    labels = (rng.random((20, 3)) < 0.4).astype(np.uint8)
    labels[:, 2] = 0
    scores = score_probabilities(labels, rng.random((20, 3)), CLASSES)
    l2 = 0.01 if protocol == "linear" else None
    return MatrixRow(network=network, sensors=sensors, protocol=protocol, scores=scores, l2=l2)


@pytest.fixture
def evaluation() -> Evaluation:
    setup = EvaluationSetup(
        networks={"random": "untrained", "checkpoint": "RUN (step 3)"},
        architecture={"name": "vit"},
        dataset="DATASET",
        dataset_checksum="0123",
        samples={"train": 1200, "test": 20},
        positive_share=0.25,
        crop_px=120,
        input_px=112,
        fill=-1.0,
        seed=0,
        protocols={"knn": "neighbours", "linear": "a layer"},
        created_by="dinomm-train",
    )
    rows = [
        row(network, sensors, protocol, seed)
        for sensors in ("s1", "s2")
        for protocol in ("knn", "linear")
        for seed, network in enumerate(setup.networks)
    ]
    return Evaluation(setup=setup, rows=tuple(rows))


def test_json_holds_every_score_and_the_classes_left_out(evaluation: Evaluation) -> None:
    plain = json.loads(json.dumps(to_plain(evaluation), allow_nan=False))
    assert len(plain["rows"]) == 8
    for found, expected in zip(plain["rows"], evaluation.rows, strict=True):
        assert found["micro_ap"] == expected.scores.micro_ap
        assert found["classes"][1] == dataclasses.asdict(expected.scores.classes[1])
        assert found["classes_without_positives"] == ["Absent"]
        assert (found["network"], found["l2"]) == (expected.network, expected.l2)
    assert plain["setup"]["input_px"] == 112


def test_csv_reads_back_to_the_same_numbers(evaluation: Evaluation) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(evaluation.rows))))
    assert len(lines) == 8 * (2 + len(CLASSES))
    first = evaluation.rows[0].scores
    assert [line["class"] for line in lines[:5]] == ["micro", "macro", *CLASSES]
    assert float(lines[0]["ap"]) == first.micro_ap
    assert float(lines[1]["f1"]) == first.macro_f1
    assert float(lines[3]["ap"]) == first.classes[1].ap
    assert (lines[4]["ap"], lines[4]["positives"]) == ("", "0")


def test_the_summary_shows_percent_with_one_line_per_row(evaluation: Evaluation) -> None:
    lines = to_summary(evaluation.rows).splitlines()
    assert len(lines) == 2 + 8
    assert len({len(line) for line in lines}) == 1
    assert f"{100 * evaluation.rows[0].scores.micro_ap:.1f}" in lines[2]
    assert lines[0].split("|")[4].strip() == "micro mAP %"


def test_markdown_tells_how_the_scores_were_made(evaluation: Evaluation) -> None:
    text = to_markdown(evaluation)
    for part in ("RUN (step 3)", "1,200 train", "120 px", "112 px", "no positives", "25.0 %"):
        assert part in text


def test_the_chart_has_a_bar_per_row_at_its_micro_map(evaluation: Evaluation) -> None:
    panels = draw_chart(evaluation).axes
    bars = [bar for panel in panels for bar in panel.patches if isinstance(bar, Rectangle)]
    heights = [round(bar.get_height(), 6) for bar in bars]
    expected = [
        round(100 * row.scores.micro_ap, 6)
        for protocol in ("knn", "linear")
        for network in ("random", "checkpoint")
        for row in evaluation.rows
        if (row.protocol, row.network) == (protocol, network)
    ]
    assert heights == expected
    assert [panel.get_title() for panel in panels] == ["knn", "linear"]


def test_all_four_files_are_written_whole(evaluation: Evaluation, tmp_path: Path) -> None:
    paths = write_report(evaluation, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "scores.json",
        "scores.csv",
        "scores.md",
        "scores.png",
    ]
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    picture = cv2.imread(str(paths[3]))
    assert picture is not None
    assert picture.std() > 10
