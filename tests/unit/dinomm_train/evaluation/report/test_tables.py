import csv
import io
import json

import pytest

from dinomm_train.evaluation.report.tables import to_csv, to_group_csv, to_plain
from tests.evaluation_fixture import CLASSES, make_evaluation


def test_plain_values_survive_json_and_hold_every_number() -> None:
    evaluation = make_evaluation()
    plain = json.loads(json.dumps(to_plain(evaluation)))
    assert len(plain["rows"]) == len(evaluation.rows) == 3 * 2 * 2 * 3
    row, source = plain["rows"][-1], evaluation.rows[-1]
    assert (row["network"], row["sensors"]) == ("checkpoint", "s1+s2 → s1")
    assert (row["train_sensors"], row["test_sensors"]) == ("s1+s2", "s1")
    assert row["micro_ap"] == row["estimates"]["micro_ap"]["mean"]
    assert row["estimates"]["micro_ap"]["low"] == source.scores["micro_ap"].low
    assert row["gains"]["macro_ap"]["mean"] == source.gains["macro_ap"].mean
    assert [one["name"] for one in row["classes"]] == list(CLASSES)
    assert plain["legacy"][0]["batch_micro_ap"] == 0.8712


def test_lines_hold_each_measure_with_its_interval_and_each_class() -> None:
    evaluation = make_evaluation(fractions=(1.0,))
    lines = list(csv.DictReader(io.StringIO(to_csv(evaluation.rows))))
    assert len(lines) == len(evaluation.rows) * (4 + len(CLASSES))
    first = evaluation.rows[0]
    assert float(lines[0]["low"]) == first.scores["micro_ap"].low
    assert float(lines[0]["spread"]) == pytest.approx(first.scores["micro_ap"].spread)
    assert lines[5]["measure"] == "ap: Forest, mixed"
    assert lines[6]["mean"] == "", "a class without positives has no score"


def test_groups_have_a_line_each() -> None:
    evaluation = make_evaluation(fractions=(1.0,))
    lines = list(csv.DictReader(io.StringIO(to_group_csv(evaluation.rows))))
    assert [line["group"] for line in lines[:2]] == ["winter", "summer"]
    assert [line["samples"] for line in lines[:2]] == ["15", "25"]
    assert float(lines[0]["micro_ap"]) == evaluation.rows[0].groups[0].micro_ap
