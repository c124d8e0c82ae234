from dataclasses import replace

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from dinomm_train.evaluation.pictures.charts import (
    draw_classes,
    draw_groups,
    draw_label_curves,
    draw_scores,
)
from tests.evaluation_fixture import SKILL, make_evaluation


def bars(panel: object) -> list[Rectangle]:
    return [one for one in panel.patches if isinstance(one, Rectangle)]  # type: ignore[attr-defined]


def test_bars_stand_at_the_scores_with_most_labels_and_lines_at_their_intervals() -> None:
    evaluation = make_evaluation()
    figure = draw_scores(evaluation)
    assert [panel.get_title() for panel in figure.axes] == ["knn", "linear"]
    rows = [
        row for row in evaluation.rows if row.key.fraction == 1.0 and row.key.protocol == "linear"
    ]
    heights = sorted(bar.get_height() for bar in bars(figure.axes[1]))
    assert heights == pytest.approx(sorted(100 * row.scores["micro_ap"].mean for row in rows))
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == [
        "s1",
        "s1+s2",
        "s1+s2 → s1",
    ]
    figure.canvas.draw()


def test_curves_go_over_the_shares_of_labels_network_by_network() -> None:
    evaluation = make_evaluation()
    figure = draw_label_curves(evaluation)
    assert len(figure.axes) == 2 * 3
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert set(lines) == set(SKILL)
    assert np.asarray(lines["rcf"].get_xdata()).tolist() == [10, 100]
    rows = [
        row
        for row in evaluation.rows
        if (row.key.network, row.key.protocol, str(row.key.sensors)) == ("rcf", "knn", "s1")
    ]
    expected = [100 * row.scores["micro_ap"].mean for row in rows]
    assert np.asarray(lines["rcf"].get_ydata()) == pytest.approx(expected)


def test_classes_without_positives_have_no_bar() -> None:
    figure = draw_classes(make_evaluation())
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert len(names) == 2
    assert not any("Absent" in name for name in names)
    assert len(bars(figure.axes[0])) == 2 * 3


def test_groups_show_the_checkpoint_under_each_sensor_set() -> None:
    figure = draw_groups(make_evaluation())
    (panel,) = figure.axes
    assert [line.get_label() for line in panel.get_lines()] == ["s1", "s1+s2"]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["winter (15)", "summer (25)"]


def test_without_a_checkpoint_the_last_network_is_shown_by_its_own_protocol() -> None:
    evaluation = make_evaluation()
    rows = {
        (row.key.network, row.key.protocol, str(row.key.sensors), row.key.fraction): row
        for row in evaluation.rows
    }
    untrained = [row for (network, *_), row in rows.items() if network == "random"]
    trained = [
        replace(row, key=replace(row.key, network="supervised", protocol="finetune"))
        for (network, protocol, *_), row in rows.items()
        if (network, protocol) == ("checkpoint", "linear")
    ]
    changed = replace(evaluation, rows=tuple(untrained + trained))
    figure = draw_classes(changed)
    assert figure.axes[0].get_title().startswith("s1+s2, finetune")
    expected = [
        100 * one.ap for one in rows["checkpoint", "linear", "s1+s2", 1.0].classes if one.ap
    ]
    assert sorted(bar.get_width() for bar in bars(figure.axes[0])) == pytest.approx(
        sorted(expected)
    )
    (panel,) = draw_groups(changed).axes
    assert [line.get_label() for line in panel.get_lines()] == ["s1", "s1+s2"]
