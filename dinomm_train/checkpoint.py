"""Checkpoints: everything a run needs to go on, as files that are whole or not there.

`RUN/checkpoints/step-00000123.pt` holds one state, `RUN/checkpoints/latest` lists the whole ones,
newest first, each with its checksum. A file is on disk before the list names it, and is deleted
only after the list has let go of it.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import xxhash
from torch import Tensor

from bigearth_prep.card import DatasetCard, parse_card
from bigearth_prep.whole_file import whole_file, write_text
from dinomm_train.config import RunConfig
from dinomm_train.config_text import config_from_dict, config_to_dict
from dinomm_train.errors import TrainError, first_line
from dinomm_train.steady_file import SteadyFile, unwatched

FOLDER = "checkpoints"
INDEX = "latest"

_FORMAT = "dinomm-checkpoint"
_FORMAT_VERSION = 1
_CHUNK_BYTES = 1 << 24
_UNREADABLE = (OSError, UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError)
_STATE = ("student", "teacher", "loss", "optimizer", "skips")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The state of a run between two steps.

    Random numbers need no state: every draw is keyed by seed, epoch, step, sample and view.
    """

    step: int
    """Steps done since the start of the run; the next one has this number."""

    steps_per_epoch: int
    """The next step is number `step % steps_per_epoch` of epoch `step // steps_per_epoch`."""

    config: RunConfig
    """What the run was started with."""

    card: DatasetCard
    """The dataset's card: channels, units and normalization of what the network saw."""

    dataset_checksum: str
    """xxh3_128 of the dataset's `dataset.json`."""

    student: dict[str, Tensor]
    """Weights of backbone and head."""

    teacher: dict[str, Tensor]
    """The moving average of the same; this is what evaluation uses."""

    loss: dict[str, Tensor]
    """The loss's centre."""

    optimizer: dict[str, Any]
    """AdamW's running statistics."""

    skips: dict[str, Tensor]
    """How many steps moved nothing, in a row up to here and in total."""

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """What changes from step to step, as the learner gives and takes it."""
        return {name: getattr(self, name) for name in _STATE}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """One line of the index."""

    file: str
    step: int
    xxh3_128: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Index:
    """What `latest` says."""

    kept: tuple[_Record, ...] = ()
    """Whole checkpoints, newest first."""

    dropped: tuple[str, ...] = ()
    """Files that are deleted next; named, so that a killed process leaves none behind."""


def save_checkpoint(
    run: Path,
    checkpoint: Checkpoint,
    *,
    keep_last: int,
    keep_every_steps: int = 0,
    advance: Callable[[], None] = unwatched,
) -> Path:
    """The path of the file just written; older ones are deleted.

    The newest `keep_last` stay, and those whose step is a multiple of `keep_every_steps`.
    Checkpoints of the same or a later step are superseded: they belong to a past that the run has
    gone back behind. `advance` is called whenever the write has got on.
    """
    path = run / FOLDER / f"step-{checkpoint.step:08}.pt"
    checksum = write_checkpoint(path, checkpoint, advance)
    before = _index_to_go_on_with(run)
    newest = _Record(file=path.name, step=checkpoint.step, xxh3_128=checksum)
    older = [record for record in before.kept if record.step < checkpoint.step]
    kept = tuple(
        record
        for age, record in enumerate([newest, *older])
        if age < keep_last or (keep_every_steps and record.step % keep_every_steps == 0)
    )
    named = {record.file for record in before.kept} | set(before.dropped)
    dropped = tuple(sorted(named - {record.file for record in kept}))
    _write_index(run, _Index(kept=kept, dropped=dropped))
    for file in dropped:
        (run / FOLDER / file).unlink(missing_ok=True)
    return path


def _index_to_go_on_with(run: Path) -> _Index:
    try:
        return _read_index(run)
    except ValueError:
        return _Index()  # begun anew; files that it named stay, as nothing says which may go


def write_checkpoint(
    path: Path, checkpoint: Checkpoint, advance: Callable[[], None] = unwatched
) -> str:
    """The checksum of the file, which is on disk whole when this returns.

    `advance` is called whenever the write has got on.
    """
    with whole_file(path) as partial:
        with SteadyFile(partial, advance) as file:
            _save_to(file, checkpoint)
        return _checksum(partial, advance)


def _save_to(file: SteadyFile, checkpoint: Checkpoint) -> None:
    try:
        torch.save(_to_plain(checkpoint), file)
    except RuntimeError as error:
        # Closing its archive, torch fails once more, and hides what the disk said.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def clear_leftovers(run: Path) -> None:
    """Delete what a process that was killed while saving has left half written."""
    for partial in (run / FOLDER).glob("*.partial"):
        partial.unlink(missing_ok=True)


def find_checkpoint(run: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, or None where it has written none.

    A file that is missing, damaged or cannot be read is named in a warning, and the one before it
    taken. Where the list names none that is whole, those that it does not name are tried as well.

    Raises:
        TrainError: there were checkpoints, but none of them is whole.
    """
    folder = run / FOLDER
    records = _stored_records(run)
    for record in records:
        try:
            return _read_record(folder, record)
        except (OSError, ValueError) as error:
            fault = "missing" if isinstance(error, FileNotFoundError) else first_line(error)
            _log.warning("checkpoint %s: %s; taking the one before it", folder / record.file, fault)
    if records:
        raise TrainError(
            f"none of the {len(records)} checkpoints in {folder} is whole; restore one, or start "
            "again in another --out"
        )
    return None


def _stored_records(run: Path) -> list[_Record]:
    """The checkpoints of the list, then those of no list, each newest first.

    Raises:
        TrainError: there is a list that cannot be read, and nothing else.
    """
    folder = run / FOLDER
    try:
        listed, fault = list(_read_index(run).kept), ""
    except (OSError, ValueError) as error:
        listed, fault = [], f"{folder / INDEX} cannot be read ({first_line(error)})"
    found = {path.name for path in folder.glob("step-*.pt")} - {record.file for record in listed}
    if fault and not found:
        raise TrainError(f"{fault}, and no checkpoint lies beside it; start again in another --out")
    if fault:
        _log.warning(fault)
    return listed + [_Record(file=name, step=0, xxh3_128="") for name in sorted(found)[::-1]]


def _read_record(folder: Path, record: _Record) -> Checkpoint:
    path = folder / record.file
    is_listed = bool(record.xxh3_128)
    if is_listed and _checksum(path) != record.xxh3_128:
        raise ValueError("it is damaged (its checksum is not the recorded one)")
    try:
        found = _read_file(path)
    except TrainError as error:
        # What is whole, and still not readable, is of another version, as are those before it.
        if is_listed and not isinstance(error.__cause__, OSError):
            raise
        raise ValueError(str(error)) from error
    if not is_listed:
        _log.warning("taking %s, which %s does not list", path, folder / INDEX)
    return found


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, or the newest whole one of a run folder.

    Raises:
        TrainError: there is none, or it is not a readable checkpoint.
    """
    if path.is_dir():
        found = find_checkpoint(path)
        if found is None:
            raise TrainError(
                f"{path} holds no checkpoint; name the folder given to `dinomm-train pretrain "
                "--out`, or wait until it has written its first"
            )
        return found
    if not path.is_file():
        raise TrainError(f"{path} does not exist; name a run folder or a checkpoint file")
    return _read_file(path)


def _to_plain(checkpoint: Checkpoint) -> dict[str, Any]:
    state = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    state |= {"config": config_to_dict(checkpoint.config), "card": checkpoint.card.to_json()}
    return {"format": _FORMAT, "format_version": _FORMAT_VERSION} | state


def _read_file(path: Path) -> Checkpoint:
    try:
        # weights_only: a checkpoint from elsewhere can hold tensors and plain values, no code.
        return _from_plain(torch.load(path, map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        raise TrainError(
            f"{path} is not a readable checkpoint of this version: {first_line(error)}"
        ) from error


def _from_plain(state: object) -> Checkpoint:
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"it has no field 'format' that says {_FORMAT!r}")
    if state["format_version"] != _FORMAT_VERSION:
        raise ValueError(f"its version is {state['format_version']}, expected {_FORMAT_VERSION}")
    values = {field.name: state[field.name] for field in fields(Checkpoint)}
    values |= {"config": config_from_dict(state["config"]), "card": parse_card(state["card"])}
    return Checkpoint(**values)


def _read_index(run: Path) -> _Index:
    path = run / FOLDER / INDEX
    if not path.is_file():
        return _Index()
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        kept = tuple(_Record(**record) for record in stored["checkpoints"])
        return _Index(kept=kept, dropped=tuple(stored.get("dropped", ())))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is no list of checkpoints: {error!r}") from error


def _write_index(run: Path, index: _Index) -> None:
    state = {"checkpoints": [asdict(record) for record in index.kept], "dropped": index.dropped}
    write_text(run / FOLDER / INDEX, json.dumps(state, indent=2) + "\n")


def _checksum(path: Path, advance: Callable[[], None] = unwatched) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance()
    return digest.hexdigest()
