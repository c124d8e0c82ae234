"""What both command lines share: exit codes, configuration files, logs and progress.

Exit codes: 0 done, 1 the data or the run is at fault, 2 the command line is, 130 interrupted.
Standard output carries results only; logs and progress go to standard error.
"""

import difflib
import json
import logging
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import click

from bigearth_prep.caches import keep_caches_out_of_home
from bigearth_prep.pace import Clock, Pace

_OWN_PACKAGES = ("bigearth_prep", "dinomm_train")

Command = Callable[..., Any]


@runtime_checkable
class Advance(Protocol):
    """Adds to a count of progress."""

    def __call__(self, count: int, note: str = "") -> None:
        """Add so many, and show the note behind the count from now on where it says something."""


def run_group(group: click.Group, errors: tuple[type[Exception], ...]) -> None:
    """Run a command group and end the process with the project's exit codes.

    Exceptions of the types in `errors` become one message without a traceback, unless `-vv`.
    """
    keep_caches_out_of_home(os.environ)
    try:
        code = group.main(standalone_mode=False)
    except click.exceptions.Abort:
        _end("interrupted; run the same command again to go on", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        _end("interrupted; run the same command again to go on", 130)
    except errors as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            logging.getLogger(__name__).debug("traceback", exc_info=True)
        _end(f"error: {error}", 1)
    except OSError as error:
        if logging.getLogger().isEnabledFor(logging.DEBUG):
            logging.getLogger(__name__).debug("traceback", exc_info=True)
        _end(f"error: {describe_os_error(error)}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _end(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


def describe_os_error(error: OSError) -> str:
    """One line that names the file, what the system said, and what to do."""
    what = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{what}; check that the path exists, is writable and has space, then run again"


def set_verbosity(count: int) -> None:
    """Log this project to standard error: progress by default, details with -v.

    With -vv every library's log and the tracebacks of errors follow.
    """
    style = "%(message)s" if count == 0 else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler = logging.StreamHandler(sys.stderr)
    if count < 2:
        handler.addFilter(lambda record: record.name.startswith(_OWN_PACKAGES))
    level = logging.INFO if count < 2 else logging.DEBUG
    logging.basicConfig(level=level, format=style, handlers=[handler], force=True)


class VerboseCommand(click.Command):
    """A command that takes `-v` after its name too."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 (click's own)
        super().__init__(*arguments, **settings)
        self.params.append(
            click.Option(
                ["-v", "--verbose"],
                count=True,
                expose_value=False,
                callback=lambda _, __, count: set_verbosity(count) if count else None,
                help="Log more; -vv adds tracebacks.",
            )
        )


def config_option() -> Callable[[Command], Command]:
    """A `--config FILE.toml` option: its keys are option names, and the command line wins.

    Unknown keys are refused with the nearest known one.
    """

    def load(ctx: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
        if path is not None:
            ctx.default_map = {**(ctx.default_map or {}), **_defaults_from(ctx, path)}
        return path

    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=load,
        help="TOML file with any of these options (dashes or underscores); flags win over it.",
    )


def _defaults_from(ctx: click.Context, path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{path} is not valid TOML: {error}") from error
    known = {
        option.lstrip("-").replace("-", "_"): parameter
        for parameter in ctx.command.params
        for option in parameter.opts
    }
    defaults = {}
    for key, value in table.items():
        parameter = known.get(key.replace("-", "_"))
        if parameter is None or parameter.name is None:
            nearest = difflib.get_close_matches(key.replace("-", "_"), known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise click.UsageError(f"{path}: unknown key {key!r}{hint}")
        is_list = isinstance(parameter, click.Option) and parameter.multiple
        defaults[parameter.name] = [value] if is_list and not isinstance(value, list) else value
    return defaults


def with_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """The command with these options, listed in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def json_option(what: str) -> Callable[[Command], Command]:
    """A `--json` option that a command takes as `as_json`; `what` says what is printed."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON.")


def print_json(result: object) -> None:
    """Print a result for scripts."""
    click.echo(json.dumps(result, indent=2, ensure_ascii=False))


@contextmanager
def progress_bar(
    total: int,
    what: str,
    *,
    done: int = 0,
    leaves_out_first: bool = False,
    clock: Clock = time.monotonic,
) -> Iterator[Advance]:
    """A function that adds to the count: a bar on a terminal, lines in a log.

    Both show the rate of about the last minute and the time left at that rate.

    Args:
        total: How many units there are.
        what: The unit, in plural, for the label.
        done: How many of them earlier commands have done.
        leaves_out_first: Whether the time up to the first call says nothing of the rate.
        clock: Where the time is read.
    """
    pace = Pace(total, done=done, leaves_out_first=leaves_out_first, clock=clock)
    if sys.stderr.isatty():
        with _rich_bar(total, done, what, pace) as advance:
            yield advance
    else:
        yield _line_printer(what, pace)


@contextmanager
def _rich_bar(total: int, done: int, what: str, pace: Pace) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, completed=done, rate="", note="")

        def advance(count: int, note: str = "") -> None:
            pace.add(count)
            progress.update(task, advance=count, rate=pace.describe_rate())
            if note:
                progress.update(task, note=note)

        yield advance


def _line_printer(what: str, pace: Pace) -> Advance:
    shown = ""

    def advance(count: int, note: str = "") -> None:
        nonlocal shown
        shown = note or shown
        if pace.add(count):
            parts = (f"{what}: {pace.describe_count()}", pace.describe_rate(), shown)
            click.echo(", ".join(filter(None, parts)), err=True)

    return advance


def counts_line(counts: Iterable[tuple[str, int]]) -> str:
    """Counts as `12 train, 3 test`, or `none`."""
    return ", ".join(f"{count:,} {name}" for name, count in counts) or "none"
