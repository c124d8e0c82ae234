"""Run configurations as text: TOML files, `key=value` on the command line, and what differs."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dinomm_train.config import RECIPES, Recipe, RunConfig
from dinomm_train.errors import TrainError

Section = TypeVar("Section")
"""Any of the configuration dataclasses."""


def resolve_config(
    recipe: Recipe, file: Path | None = None, assignments: Sequence[str] = ()
) -> RunConfig:
    """The recipe, with the file's values in its place, with the assignments' in theirs.

    Raises:
        TrainError: as `read_config` and `override_config` do.
    """
    base = RECIPES[recipe]
    return override_config(read_config(file, base) if file else base, assignments)


def read_config(path: Path, base: RunConfig) -> RunConfig:
    """The base with what this TOML file says in its place.

    Raises:
        TrainError: the file is not TOML, a key is unknown, or a value does not fit its field.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path} is not a readable TOML file: {error}") from error
    return merge_config(base, table, source=str(path))


def override_config(config: RunConfig, assignments: Sequence[str]) -> RunConfig:
    """The configuration with `section.key=value` assignments made; the last of a key holds.

    Values are read as the field's type: `views.crops.global_scale=0.3,1`, `optim.clip=global`.

    Raises:
        TrainError: an assignment has no `=`, its key is unknown, or its value does not fit.
    """
    table: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise TrainError(f"--set {assignment}: expected section.key=value")
        _put(table, key.strip().split("."), _parse_value(text.strip()))
    # All at once: two settings may only make sense together.
    return merge_config(config, table, source="--set")


def _put(table: dict[str, Any], path: Sequence[str], value: object) -> None:
    *sections, name = path
    for section in sections:
        inner = table.get(section)
        table[section] = inner if isinstance(inner, dict) else {}
        table = table[section]
    table[name] = value


def _parse_value(text: str) -> object:
    for candidate in (text, f"[{text}]"):
        try:
            return tomllib.loads(f"value = {candidate}")["value"]
        except tomllib.TOMLDecodeError:
            continue
    return text


def merge_config(base: RunConfig, table: Mapping[str, Any], *, source: str) -> RunConfig:
    """The base with a nested table's values in place of its own.

    Raises:
        TrainError: a key is unknown or a value does not fit; `source` says where it stands.
    """
    return _merge(base, table, source, "")


def config_from_dict(table: Mapping[str, Any]) -> RunConfig:
    """The configuration that `config_to_dict` was given."""
    return merge_config(RunConfig(), table, source="stored configuration")


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values."""
    return dataclasses.asdict(config)


def config_to_toml(config: RunConfig) -> str:
    """The configuration as a TOML file that `read_config` reads back to an equal one."""
    return "\n".join(_tables(config_to_dict(config), "")).lstrip("\n") + "\n"


def _tables(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if values:
        yield f"\n[{prefix.rstrip('.')}]"
        # JSON spells these values (numbers, booleans, strings, lists of them) as TOML does.
        yield from (f"{key} = {json.dumps(value)}" for key, value in values.items())
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _tables(value, f"{prefix}{key}.")


def config_leaves(config: RunConfig) -> Iterator[tuple[str, object]]:
    """Every field as `section.key` with its value."""
    return _leaves(config_to_dict(config), "")


def config_differences(stored: RunConfig, wanted: RunConfig) -> tuple[str, ...]:
    """One line per field whose value differs, as `key: stored -> wanted`."""
    before = dict(_leaves(config_to_dict(stored), ""))
    after = dict(_leaves(config_to_dict(wanted), ""))
    return tuple(
        f"{key}: {before[key]!r} -> {after[key]!r}" for key in before if before[key] != after[key]
    )


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _merge(base: Section, table: Mapping[str, Any], source: str, prefix: str) -> Section:
    types = get_type_hints(type(base))
    changes = {}
    for key, value in table.items():
        name = prefix + key
        if key not in types:
            raise TrainError(f"{source}: unknown key {name!r}{_nearest(name)}")
        if dataclasses.is_dataclass(types[key]):
            if not isinstance(value, Mapping):
                raise TrainError(f"{source}: {name} is a section, got the value {value!r}")
            changes[key] = _merge(getattr(base, key), value, source, f"{name}.")
        else:
            changes[key] = _fit(types[key], value, f"{source}: {name}")
    try:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise TrainError(f"{source}: {prefix}{error}") from error


def _nearest(name: str) -> str:
    known = [key for key, _ in _leaves(config_to_dict(RunConfig()), "")]
    last = name.rpartition(".")[2]
    close = [key for key in known if key.rpartition(".")[2] == last]
    close += difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _fit(kind: object, value: object, where: str) -> object:
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise TrainError(f"{where} must be one of {', '.join(get_args(kind))}, got {value!r}")
    if get_origin(kind) is tuple:
        return _fit_tuple(get_args(kind), value, where)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise TrainError(f"{where} must be {getattr(kind, '__name__', kind)}, got {value!r}")
    return value


def _fit_tuple(kinds: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    is_list = isinstance(value, list | tuple)
    if is_list and kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)  # type: ignore[arg-type]
    if not is_list or len(value) != len(kinds):  # type: ignore[arg-type]
        expected = "a list" if kinds[-1] is Ellipsis else f"{len(kinds)} values"
        raise TrainError(f"{where} must be {expected}, got {value!r}")
    return tuple(_fit(one, item, where) for one, item in zip(kinds, value, strict=True))  # type: ignore[call-overload]
