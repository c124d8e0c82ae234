"""The table of switches holds each row against its own base, and tells effects from chance."""

import json
import math
import statistics
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from dinomm_train.config_text import resolve_config
from examples import recipe_switches
from examples.recipe_switches import (
    BASES,
    CONFIG,
    FIXED,
    REPAIRED,
    SENSORS,
    SWITCHES,
    UNTRAINED,
    Bench,
    Scores,
    base_of,
    noise_of,
    settings_of,
    table_of,
)


def chance_scores(rng: np.random.Generator, *, spread: float = 0.7) -> Scores:
    """Rows that differ by chance alone, as many seeds as the published table has."""
    return {
        name: [
            {sensors: 60 + spread * rng.standard_normal() for sensors in SENSORS}
            for _ in range(3 if name in BASES else 2)
        ]
        for name in (UNTRAINED, *SWITCHES["paper"])
    }


def cells_of(table: str, name: str) -> list[str]:
    row = next(line for line in table.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_chance_leaves_the_margins_as_often_as_they_state() -> None:
    rng = np.random.default_rng(0)
    own, others = 2, 3
    held = [name for name in SWITCHES["paper"] if name not in BASES]
    beyond, tables_beyond_all, tables = 0, 0, 400
    for _ in range(tables):
        scores = chance_scores(rng)
        noise = noise_of(scores, "s1")
        assert noise is not None
        means = {name: statistics.mean(one["s1"] for one in scores[name]) for name in scores}
        differences = [abs(means[name] - means[base_of(name, "paper")]) for name in held]
        beyond += sum(one > noise.margin(own, others) for one in differences)
        limit = noise.margin(own, others, comparisons=len(held))
        tables_beyond_all += max(differences) > limit
    assert beyond / (tables * len(held)) == pytest.approx(0.05, abs=0.015)
    assert 0.01 < tables_beyond_all / tables < 0.06


def test_an_effect_is_bold_and_chance_is_not() -> None:
    scores = chance_scores(np.random.default_rng(2))
    for one in scores["D7 codes wrap"]:
        one["s2"] -= 10
    table = table_of(scores, "paper")
    assert cells_of(table, "D7 codes wrap")[4].count("**") == 2
    assert table.count("**") == 2


def test_a_row_is_held_against_its_own_base() -> None:
    means = {
        FIXED: 50.0, "D10 missing sensor is 0": 51.0, REPAIRED: 48.0, "D7 codes wrap": 46.5
    }  # fmt: skip
    scores: Scores = {
        name: [dict.fromkeys(SENSORS, mean + offset) for offset in (-1.0, 1.0)]
        for name, mean in means.items()
    }
    scores[UNTRAINED] = [dict.fromkeys(SENSORS, mean) for mean in (10.0, 40.0)]
    table = table_of(scores, "paper")
    # Four trained rows of variance 2: t of 4 degrees of freedom, standard error
    # sqrt(2 (1/2 + 1/2)).
    margin = 2.7764 * math.sqrt(2)
    assert cells_of(table, FIXED) == [FIXED, "2", "50.0", "50.0", "50.0"]
    assert cells_of(table, "D10 missing sensor is 0")[2] == f"51.0 (+1.0 ± {margin:.1f})"
    assert cells_of(table, REPAIRED)[2] == f"48.0 (-2.0 ± {margin:.1f})"
    assert cells_of(table, "D7 codes wrap")[2] == f"46.5 (-1.5 ± {margin:.1f})"
    assert "beyond that of all 12 differences together" in table


def test_a_single_seed_has_differences_without_margins() -> None:
    scores: Scores = {
        FIXED: [dict.fromkeys(SENSORS, 50.0)],
        "tokens decay": [dict.fromkeys(SENSORS, 51.5)],
    }
    assert cells_of(table_of(scores, "zscore"), "tokens decay")[2:] == ["51.5 (+1.5)"] * 3


@pytest.mark.parametrize("normalize", SWITCHES)
def test_each_row_changes_its_base(tmp_path: Path, normalize: str) -> None:
    bench = Bench(folder=tmp_path, normalize=normalize, changes=["sampling.global_batch=8"])
    bench.dataset.mkdir()
    (bench.dataset / "dataset.json").write_text('{"splits": {"train": {"samples": 100}}}')
    configs = {
        name: resolve_config("fixed", CONFIG, [one[6:] for one in settings_of(bench, name, 3)])
        for name in SWITCHES[normalize]
    }
    bases = [configs[base_of(name, normalize)] for name in configs]
    same = [name for name, base in zip(configs, bases, strict=True) if configs[name] == base]
    assert same == [FIXED]
    assert {(one.health.samples, one.health.knn_every_epochs) for one in configs.values()} == {
        (0, 0)
    }
    assert {(one.sampling.seed, one.sampling.global_batch) for one in configs.values()} == {(3, 8)}
    limits = [one.sampling.sample_limit for name, one in configs.items() if name.startswith("D1 ")]
    assert limits == ([96] if normalize == "zscore" else [])


def test_every_row_is_trained_once_per_seed_and_bases_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def pretend(_: click.Group, command: str, *arguments: object) -> None:
        options = [str(one) for one in arguments]
        out = Path(next(one for one in options if one.startswith("--out="))[6:])
        if command == "build-shards":
            out.mkdir()
            (out / "dataset.json").write_text('{"splits": {"train": {"samples": 100}}}')
        if command == "pretrain":
            made.append(out.name)
        if command == "evaluate":
            names = [one[9:].partition("=")[0] for one in options if one.startswith("--beside=")]
            rows = [
                {"network": name, "sensors": sensors, "micro_ap": 0.5}
                for name in (UNTRAINED, *names)
                for sensors in SENSORS
            ]
            out.mkdir()
            (out / "scores.json").write_text(json.dumps({"rows": rows}))

    (tmp_path / "archive").mkdir()
    monkeypatch.setattr(recipe_switches, "call", pretend)
    arguments = ["--seeds", "1", "--base-seeds", "2", "--normalize", "paper"]
    monkeypatch.setattr(sys, "argv", ["recipe_switches.py", str(tmp_path), *arguments])
    assert recipe_switches.main() == 0
    assert [name[-1] for name in made] == ["0"] * 8 + ["1"] * 2
    assert len(set(made)) == 10
    table = (tmp_path / "switches.md").read_text()
    assert cells_of(table, FIXED)[1:3] == ["2", "50.0"]
    assert recipe_switches.main() == 0
    assert len(made) == 10, "what is there already is kept"
