"""Configurations survive being written, and a typing mistake is met with the right spelling."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from dinomm_train.config import RECIPES, Recipe, RunConfig, ScheduleConfig
from dinomm_train.config_text import (
    config_differences,
    config_from_dict,
    config_to_dict,
    config_to_toml,
    override_config,
    read_config,
    resolve_config,
)
from dinomm_train.errors import TrainError

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("recipe", ["fixed", "paper"])
def test_a_recipe_comes_back_from_its_toml_and_its_dictionary(
    recipe: Recipe, tmp_path: Path
) -> None:
    config = RECIPES[recipe]
    path = tmp_path / "config.toml"
    path.write_text(config_to_toml(config), encoding="utf-8")
    other = RECIPES["paper" if recipe == "fixed" else "fixed"]
    assert read_config(path, other) == config
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize("recipe", ["fixed", "paper"])
def test_the_explained_file_of_a_recipe_states_every_field_of_it(recipe: Recipe) -> None:
    path = CONFIGS / f"pretrain-{recipe}.toml"
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert written == tomllib.loads(config_to_toml(RECIPES[recipe]))


def test_the_demo_file_is_a_valid_change_of_the_fixed_recipe() -> None:
    demo = read_config(CONFIGS / "pretrain-demo.toml", RECIPES["fixed"])
    assert demo.schedule.epochs < RECIPES["fixed"].schedule.epochs


def test_the_file_wins_over_the_recipe_and_assignments_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("[schedule]\nepochs = 20\nlr = 1e-3\n", encoding="utf-8")
    config = resolve_config("paper", path, ["schedule.epochs=30"])
    assert config.schedule == ScheduleConfig(epochs=30, lr=1e-3)
    assert config.optim == RECIPES["paper"].optim


def test_assigned_values_are_read_as_the_type_of_their_field() -> None:
    config = override_config(
        RunConfig(),
        [
            "schedule.epochs=12",
            "schedule.lr=1",
            "optim.decay_tokens=true",
            "model.name=vit_tiny_patch16_224",
            "views.crops.local_scale=0.1,0.5",
        ],
    )
    assert config.schedule.epochs == 12
    assert isinstance(config.schedule.lr, float)
    assert config.optim.decay_tokens is True
    assert config.model.name == "vit_tiny_patch16_224"
    assert config.views.crops.local_scale == (0.1, 0.5)


def test_assignments_are_judged_together_and_the_last_of_a_key_holds() -> None:
    settings = ["schedule.epochs=2", "schedule.warmup_epochs=0", "schedule.warmup_epochs=1"]
    schedule = override_config(RunConfig(), settings).schedule
    assert (schedule.epochs, schedule.warmup_epochs) == (2, 1)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("schedule.epoch=3", r"unknown key 'schedule.epoch'; did you mean schedule.epochs\?"),
        ("crops.local_px=3", r"unknown key 'crops'"),
        ("global_px=3", r"did you mean views.crops.global_px\?"),
        ("schedule.epochs=many", "schedule.epochs must be int, got 'many'"),
        ("schedule.epochs=1.5", "schedule.epochs must be int, got 1.5"),
        ("schedule.epochs=true", "schedule.epochs must be int, got True"),
        ("optim.clip=local", "must be one of global, per_tensor, got 'local'"),
        ("optim.betas=0.9", "must be 2 values"),
        ("schedule=3", "schedule is a section"),
        ("schedule.epochs=3", "warmup_epochs must not exceed epochs"),
        ("schedule.epochs", "expected section.key=value"),
    ],
)
def test_a_wrong_assignment_is_refused_with_what_would_be_right(
    assignment: str, message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        override_config(RunConfig(), [assignment])


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[schedule", encoding="utf-8")
    with pytest.raises(TrainError, match=r"broken\.toml is not a readable TOML file"):
        read_config(path, RunConfig())


def test_differences_name_each_changed_field_with_both_values() -> None:
    changed = replace(RunConfig(), schedule=ScheduleConfig(epochs=50))
    assert config_differences(RunConfig(), changed) == ("schedule.epochs: 100 -> 50",)
    assert config_differences(changed, changed) == ()
