"""No number of any configuration may be nonsense."""

import dataclasses
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dinomm_train.config import RunConfig
from dinomm_train.config_checks import (
    require_not_negative,
    require_positive,
    require_probabilities,
    require_rising,
)
from dinomm_train.data.storage_options import StorageOptions
from dinomm_train.evaluation.config import ExtractionConfig
from dinomm_train.evaluation.protocol_config import FinetuneConfig, LegacyConfig, LinearConfig

NEVER = (math.nan, math.inf, -math.inf)


def owner(value: object) -> SimpleNamespace:
    return SimpleNamespace(field=value)


@pytest.mark.parametrize("bad", [*NEVER, 0, -1, (1.0, 0.0), (math.nan, 1.0)])
def test_what_is_not_positive_is_refused(bad: object) -> None:
    require_positive(owner(1e-9), "field")
    require_positive(owner((1, 2)), "field")
    with pytest.raises(ValueError, match="field must be finite and positive, got"):
        require_positive(owner(bad), "field")


@pytest.mark.parametrize("bad", [*NEVER, -1e-9, (0.0, -1.0)])
def test_what_is_negative_is_refused(bad: object) -> None:
    require_not_negative(owner(0), "field")
    with pytest.raises(ValueError, match="field must be finite and not negative, got"):
        require_not_negative(owner(bad), "field")


@pytest.mark.parametrize("bad", [*NEVER, -1e-9, 1.001, (1.0, 2.0)])
def test_what_is_no_probability_is_refused(bad: object) -> None:
    require_probabilities(owner((0, 0.5, 1)), "field")
    with pytest.raises(ValueError, match=r"field must lie in \[0, 1\], got"):
        require_probabilities(owner(bad), "field")


@pytest.mark.parametrize("bad", [(0, 1), (2, 1), (math.nan, 1), (1, math.nan), (1, math.inf)])
def test_what_is_no_range_is_refused(bad: object) -> None:
    require_rising(owner((1, 1)), "field")
    with pytest.raises(ValueError, match="field must rise above 0, got"):
        require_rising(owner(bad), "field")
    require_rising(owner((0.5, 1)), "field", most=1.0)
    with pytest.raises(ValueError, match=r"field must rise within \(0, 1\], got 0.5 to 1.01"):
        require_rising(owner((0.5, 1.01)), "field", most=1.0)


def numbers_of(config: Any, path: str) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401
    """Every number and tuple of numbers: its path, its section, its name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from numbers_of(value, f"{path}.{field.name}")
        elif _is_number(value) or (isinstance(value, tuple) and all(map(_is_number, value))):
            yield f"{path}.{field.name}", config, field.name


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NUMBERS = [
    found
    for config in (
        RunConfig(),
        StorageOptions(),
        ExtractionConfig(sensor_sets=("s1",)),
        LinearConfig(),
        FinetuneConfig(),
        LegacyConfig(),
    )
    for found in numbers_of(config, type(config).__name__)
]

MAY_BE_NEGATIVE = "RunConfig.views.sensor_drop.fill"


@pytest.mark.parametrize(("path", "section", "name"), NUMBERS, ids=[one[0] for one in NUMBERS])
def test_nothing_takes_a_number_that_is_none_or_below_what_it_may_be(
    path: str,
    section: Any,  # noqa: ANN401
    name: str,
) -> None:
    value = getattr(section, name)
    numbers = value if isinstance(value, tuple) else (value,)
    for place, number in enumerate(numbers):
        bad: list[float] = [-5] if isinstance(number, int) else [*NEVER, -5.0]
        for one in bad if path != MAY_BE_NEGATIVE else NEVER:
            spoilt = (*numbers[:place], one, *numbers[place + 1 :])
            change: Any = {name: spoilt if isinstance(value, tuple) else one}
            with pytest.raises(ValueError, match=name):
                dataclasses.replace(section, **change)


def test_the_sweep_sees_every_section() -> None:
    seen = {path.rpartition(".")[0] for path, _, _ in NUMBERS}
    assert {"RunConfig.optim", "RunConfig.views.published", "StorageOptions.retry"} <= seen


def test_nothing_is_learnt_or_forgotten_for_ever() -> None:
    for config in (LinearConfig, LegacyConfig):
        with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got 1"):
            config(momentum=1.0)
    with pytest.raises(ValueError, match="layer_decay must be finite and positive"):
        FinetuneConfig(layer_decay=0.0)
