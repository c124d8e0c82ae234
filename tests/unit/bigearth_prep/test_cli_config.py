"""Every option of every command may stand in a TOML file, dashes or underscores."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from bigearth_prep.cli import commands

NOT_SETTINGS = {"help", "config", "verbose"}


def options_of(command: str) -> list[click.Option]:
    return [
        parameter
        for parameter in commands.commands[command].params
        if isinstance(parameter, click.Option) and parameter.name not in NOT_SETTINGS
    ]


def some_value(option: click.Option, file: Path) -> Any:  # noqa: ANN401 (as TOML has it)
    """A value that the option takes and does not have by default."""
    special = {"split": f"train={file}", "split_ratio": "0.5,0.25,0.25", "bands": "B02,VV"}
    if option.name in special:
        return special[option.name]
    if option.is_flag:
        return not option.secondary_opts  # those that can be switched off are on by default
    if isinstance(option.type, click.Choice):
        return next(choice for choice in option.type.choices if choice != option.default)
    numbers = {"integer": 3, "integer range": 3, "float": 3.5}
    return numbers.get(option.type.name, str(file))


def as_arguments(option: click.Option, value: Any) -> list[str]:  # noqa: ANN401
    if option.is_flag:
        return [option.opts[0] if value else option.secondary_opts[0]]
    return [option.opts[0], str(value)]


def parsed(command: str, arguments: list[str]) -> dict[str, Any]:
    known = commands.commands[command]
    places = ["somewhere" for parameter in known.params if isinstance(parameter, click.Argument)]
    return dict(known.make_context(command, [*places, *arguments]).params)


@pytest.mark.parametrize("command", sorted(commands.commands))
@pytest.mark.parametrize("dash", ["-", "_"])
def test_a_file_of_all_options_parses_as_the_same_options_on_the_command_line(
    tmp_path: Path, command: str, dash: str
) -> None:
    file = tmp_path / "there"
    file.touch()
    values = {option: some_value(option, file) for option in options_of(command)}
    assert len(values) >= 3
    config = tmp_path / "options.toml"
    names = {option: option.opts[0].lstrip("-").replace("-", dash) for option in values}
    lines = (f"{names[option]} = {json.dumps(value)}\n" for option, value in values.items())
    config.write_text("".join(lines))
    on_command_line = [part for pair in values.items() for part in as_arguments(*pair)]
    expected = parsed(command, on_command_line)
    assert parsed(command, ["--config", str(config)]) == expected
    for option in values:
        assert expected[str(option.name)] != option.default, option.name
