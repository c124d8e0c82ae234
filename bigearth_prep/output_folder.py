"""The folder a build writes to: whose it is, and how a new dataset takes an old one's place."""

import json
import logging
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bigearth_prep.card import CARD_NAME, read_card
from bigearth_prep.errors import PrepError
from bigearth_prep.folder_lock import hold_folder
from bigearth_prep.shard_task import BUILD_FOLDER
from bigearth_prep.whole_file import write_text

log = logging.getLogger(__name__)

OPTIONS_NAME = "build.toml"
"""The options used, readable by `build-shards --config`."""

_SOURCE_NAME = "source.json"
_REPLACEMENT_SUFFIX = ".overwrite"


@contextmanager
def claim_folder(
    out: Path, options: Mapping[str, Any], source: Mapping[str, Any], *, overwrite: bool
) -> Iterator[Path | None]:
    """The folder to build in, held against other builds; None where the dataset is complete.

    That is `out`, new or with an unfinished build of the same request in it; or, to overwrite
    a finished dataset, a folder beside it that `publish_folder` puts in its place.

    Raises:
        PrepError: the folder holds something else, or another build is at work in it.
    """
    folder = out
    if (out / CARD_NAME).exists():
        if not overwrite:
            _refuse_differences(out, options, source, read_card(out).source)
            shutil.rmtree(out / BUILD_FOLDER, ignore_errors=True)
            yield None
            return
        folder = out.with_name(out.name + _REPLACEMENT_SUFFIX)
    build = folder / BUILD_FOLDER
    if overwrite and build.is_dir() and _differences(folder, options, source, _kept_source(folder)):
        shutil.rmtree(folder)
    if not build.is_dir():
        _refuse_foreign(folder)
    build.mkdir(parents=True, exist_ok=True)
    with hold_folder(build, "another build is writing there; wait for it"):
        if (build / _SOURCE_NAME).exists():
            _refuse_differences(folder, options, source, _kept_source(folder))
            log.info("going on with the unfinished build in %s", folder)
        write_text(folder / OPTIONS_NAME, _to_toml(options))
        write_text(build / _SOURCE_NAME, json.dumps(source))
        yield folder


def publish_folder(folder: Path, out: Path) -> None:
    """Make the finished folder the dataset at `out`, and drop what only the build needed."""
    shutil.rmtree(folder / BUILD_FOLDER)
    if folder == out:
        return
    replaced = out.with_name(out.name + ".replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    out.rename(replaced)
    folder.rename(out)
    shutil.rmtree(replaced)


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise PrepError(f"{folder} is not empty and no dataset of ours; choose another --out")


def _refuse_differences(
    folder: Path, options: Mapping[str, Any], source: Mapping[str, Any], kept: Mapping[str, Any]
) -> None:
    differences = _differences(folder, options, source, kept)
    if differences:
        raise PrepError(
            f"{folder} was built from another request: {'; '.join(differences)}; "
            "use the same options, another --out, or --overwrite"
        )


def _differences(
    folder: Path, options: Mapping[str, Any], source: Mapping[str, Any], kept: Mapping[str, Any]
) -> list[str]:
    path = folder / OPTIONS_NAME
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before: dict[str, Any] = tomllib.loads(text) | dict(kept)
    now: dict[str, Any] = {**options, **source}
    return [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _kept_source(folder: Path) -> dict[str, Any]:
    path = folder / BUILD_FOLDER / _SOURCE_NAME
    source: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return source


def _to_toml(options: Mapping[str, Any]) -> str:
    """Flat TOML: JSON's scalars are TOML's."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
