from dinomm_train.evaluation.matrix import Estimate
from dinomm_train.evaluation.report.markdown import in_percent, to_markdown, to_summary
from tests.evaluation_fixture import make_evaluation


def test_a_cell_says_mean_spread_and_interval_in_percent() -> None:
    one = Estimate(mean=0.5, spread=0.012, low=0.456, high=0.5)
    assert in_percent(one) == "50.0 ± 1.2 [45.6, 50.0]"
    alone = Estimate(mean=-0.05, spread=None, low=-0.1, high=0.02)
    assert in_percent(alone, signed=True) == "-5.0 [-10.0, +2.0]"


def test_the_summary_has_a_line_per_row_and_aligned_columns() -> None:
    evaluation = make_evaluation()
    lines = to_summary(evaluation.rows).splitlines()
    assert len(lines) == 2 + len(evaluation.rows)
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split("|")[1].strip() == "sensors"
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:4] == ["s1", "10 %", "knn", "random"]
    assert cells[4] == in_percent(evaluation.rows[0].scores["micro_ap"])


def test_the_whole_text_says_how_scores_were_made_and_marks_legacy_figures() -> None:
    text = to_markdown(make_evaluation())
    assert "where checkpoint comes from" in text
    assert "2 resamples" not in text
    assert "(30 resamples)" in text
    assert "## Legacy: for comparison with published figures only" in text
    assert "87.1 |" in text
    assert "Guessing has a micro mAP of 25.0 %" in text
    assert "10 %: 120, 100 %: 1,200" in text
    assert "## Micro mAP by season, in %" in text
    assert "no positives" in text


def test_without_legacy_figures_nothing_is_said_of_them() -> None:
    import dataclasses

    text = to_markdown(dataclasses.replace(make_evaluation(), legacy=()))
    assert "Legacy" not in text
