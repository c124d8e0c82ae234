"""The folder a build writes to: whose it is, and how a new dataset takes an old one's place."""

import json
import logging
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigearth_prep.card import CARD_NAME, DatasetCard, read_card
from bigearth_prep.errors import PrepError
from bigearth_prep.file_lock import hold_lock
from bigearth_prep.shard_task import BUILD_FOLDER
from bigearth_prep.whole_file import PARTIAL_SUFFIX, drop_partial_files, write_text

log = logging.getLogger(__name__)

OPTIONS_NAME = "build.toml"
"""The options used, readable by `build-shards --config`."""

_SOURCE_NAME = "source.json"


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What is to be built; two builds of equal `options` and `source` give the same bytes."""

    options: Mapping[str, Any]
    places: Mapping[str, Any]
    """Options that only say where files lie."""

    source: Mapping[str, Any]
    """What was found there, by checksum: the card's `source`."""

    def differences(self, options: Mapping[str, Any], source: Mapping[str, Any]) -> list[str]:
        """Where an earlier request differs, in words."""
        now = {**self.options, **self.source}
        before = {name: options.get(name) for name in self.options} | dict(source)
        return [
            f"{name} was {before.get(name)}, is {now.get(name)}"
            for name in sorted(now.keys() | before.keys())
            if now.get(name) != before.get(name)
        ]


@contextmanager
def claim_folder(
    out: Path, request: BuildRequest, *, resume: bool, overwrite: bool
) -> Iterator[Path | None]:
    """The folder to build in, held against other builds; None where the dataset is complete.

    That is `out`, new or with an unfinished build of the same request in it; or, to overwrite
    a finished dataset, a folder beside it that `publish_folder` puts in its place.

    Raises:
        PrepError: the folder holds something else, or another build is at work in it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = out.with_name(f".{out.name}.lock")
    with hold_lock(lock, f"another build is writing to {out}; wait for it"):
        _finish_publishing(out)
        if (out / CARD_NAME).exists() and not overwrite:
            _require_same_dataset(out, request)
            shutil.rmtree(out / BUILD_FOLDER, ignore_errors=True)
            yield None
            return
        folder = _replacement(out) if (out / CARD_NAME).exists() else out
        _open_folder(folder, request, resume=resume, overwrite=overwrite)
        yield folder


def publish_folder(folder: Path, out: Path) -> None:
    """Make the finished folder the dataset at `out`, and drop what only the build needed.

    Killed at any point, the next claim of `out` finishes the job.
    """
    if folder != out:
        out.rename(_replaced(out))
        folder.rename(out)
    shutil.rmtree(out / BUILD_FOLDER)
    shutil.rmtree(_replaced(out), ignore_errors=True)


def _replacement(out: Path) -> Path:
    return out.with_name(f"{out.name}.overwrite")


def _replaced(out: Path) -> Path:
    return out.with_name(f"{out.name}.replaced")


def _finish_publishing(out: Path) -> None:
    if not _replaced(out).exists():
        return
    if not out.exists():
        is_new_whole = (_replacement(out) / CARD_NAME).exists()
        (_replacement(out) if is_new_whole else _replaced(out)).rename(out)
    shutil.rmtree(_replaced(out), ignore_errors=True)


def _open_folder(folder: Path, request: BuildRequest, *, resume: bool, overwrite: bool) -> None:
    """New, or as an earlier build of the same request left it; otherwise emptied, or refused."""
    kept = folder / BUILD_FOLDER / _SOURCE_NAME
    if kept.exists():
        source = json.loads(kept.read_text(encoding="utf-8"))
        differences = request.differences(_options_of(folder), source)
        if overwrite and (differences or not resume):
            shutil.rmtree(folder)
        elif differences:
            raise _other_request(folder, differences)
        elif not resume:
            raise PrepError(f"{folder} holds an unfinished build; resume it, or --overwrite it")
        else:
            log.info("going on with the unfinished build in %s", folder)
            drop_partial_files(folder)
    elif folder.exists() and not _has_hardly_begun(folder):
        raise PrepError(f"{folder} is not empty and no dataset of ours; choose another --out")
    (folder / BUILD_FOLDER).mkdir(parents=True, exist_ok=True)
    write_text(folder / OPTIONS_NAME, _to_toml({**request.places, **request.options}))
    write_text(kept, json.dumps(request.source))


def _has_hardly_begun(folder: Path) -> bool:
    """Whether it is empty, or of a start that was killed before it had noted its request."""
    names = {path.name for path in folder.iterdir()}
    first = {BUILD_FOLDER, OPTIONS_NAME, f"{OPTIONS_NAME}{PARTIAL_SUFFIX}"}
    return not names or (BUILD_FOLDER in names and names <= first)


def _require_same_dataset(out: Path, request: BuildRequest) -> None:
    card = read_card(out)
    if differences := request.differences(_options_of(out), card.source):
        raise _other_request(out, differences)
    if lacking := _lacking(out, card):
        raise PrepError(
            f"{out} is finished but damaged: {lacking[0]} and {len(lacking) - 1} other files are "
            "missing or of another size; copy them again, or --overwrite the dataset"
        )


def _lacking(out: Path, card: DatasetCard) -> list[str]:
    sizes = {file.name: file.bytes for part in card.splits.values() for file in part.files}
    shards = [name for name, size in sizes.items() if not _has_size(out / name, size)]
    return [name for name in card.tables if not (out / name).exists()] + shards


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def _other_request(folder: Path, differences: list[str]) -> PrepError:
    return PrepError(
        f"{folder} was built from another request: {'; '.join(differences)}; "
        "use the same options, another --out, or --overwrite"
    )


def _options_of(folder: Path) -> dict[str, Any]:
    path = folder / OPTIONS_NAME
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _to_toml(options: Mapping[str, Any]) -> str:
    """Flat TOML: JSON's scalars and lists of them are TOML's."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
