"""Where each patch's files lie in a tar: made by one walk over the headers, kept in a parquet."""

import json
import logging
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from bigearth_prep.tar_walk import TarMember, walk_tar
from bigearth_prep.terminal import progress_bar
from bigearth_prep.whole_file import whole_file

log = logging.getLogger(__name__)

MEMBERS_TYPE = pa.list_(
    pa.struct(
        [
            ("ending", pa.dictionary(pa.int32(), pa.string())),
            ("start", pa.int64()),
            ("bytes", pa.int64()),
        ]
    )
)
"""A patch's files: what follows its name, and where the content lies in the tar."""

INDEX_SCHEMA = pa.schema([("folder", pa.string()), ("members", MEMBERS_TYPE)])
"""One row per patch, in the tar's order; the folder is the whole path inside the tar."""

_SOURCE_KEY = b"source"
_FORMAT_VERSION = 2
_MEMBERS_PER_STEP = 4096


def index_tar(tar: Path) -> pa.Table:
    """The files of every patch in a tar, as `INDEX_SCHEMA`.

    The files of a patch share a folder, and their names begin with the folder's.

    Raises:
        PrepError: the file is no plain tar, or a truncated one.
    """
    rows: dict[str, int] = {}
    codes: dict[str, int] = {}
    columns = array("q")
    others = 0
    for member in _with_progress(tar):
        folder, _, name = member.name.rpartition("/")
        patch = folder.rpartition("/")[2]
        if not patch or not name.startswith(patch):
            others += 1
            continue
        row = rows.setdefault(folder, len(rows))
        code = codes.setdefault(name[len(patch) :], len(codes))
        columns.extend((row, code, member.start, member.size))
    if others:
        log.warning("%s: %s files belong to no patch and are left alone", tar, f"{others:,}")
    return _table_of(list(rows), list(codes), np.array(columns, np.int64).reshape(-1, 4))


def _with_progress(tar: Path) -> Iterator[TarMember]:
    total = tar.stat().st_size
    done = 0
    with progress_bar(total, f"bytes of {tar.name} indexed") as advance:
        for count, member in enumerate(walk_tar(tar)):
            yield member
            if count % _MEMBERS_PER_STEP == 0:
                advance(member.start - done)
                done = member.start
        advance(total - done)


def _table_of(
    folders: list[str], endings: list[str], columns: Int64[np.ndarray, "member 4"]
) -> pa.Table:
    """Columns are a member's row, the number of its ending, its start and its size."""
    in_rows = columns[np.argsort(columns[:, 0], kind="stable")]
    row, code, start, size = np.ascontiguousarray(in_rows.T)
    ends = np.cumsum(np.bincount(row, minlength=len(folders)))
    names = pa.DictionaryArray.from_arrays(
        pa.array(code, pa.int32()), pa.array(endings, pa.string())
    )
    members = pa.StructArray.from_arrays(
        [names, pa.array(start), pa.array(size)], fields=list(MEMBERS_TYPE.value_type)
    )
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, members, type=MEMBERS_TYPE)
    return pa.table([pa.array(folders, pa.string()), lists], schema=INDEX_SCHEMA)


def index_path(source: Path, cache: Path | None) -> Path:
    """Where an archive's index is kept: beside it, or in the cache folder."""
    return (cache or source.parent) / f"{source.name}.index.parquet"


def is_indexed(source: Path, cache: Path | None) -> bool:
    """Whether the kept index is of this very file, by size and time of change."""
    path = index_path(source, cache)
    if not path.exists():
        return False
    try:
        kept = (pq.read_schema(path).metadata or {}).get(_SOURCE_KEY)
    except (pa.ArrowException, OSError) as error:
        log.warning("%s cannot be read and is made anew: %s", path, error)
        return False
    return bool(kept == _identity(source))


def load_index(source: Path, cache: Path | None) -> pa.Table | None:
    """The kept index of an archive; None where there is none, or it is of another file."""
    if not is_indexed(source, cache):
        return None
    return pq.read_table(index_path(source, cache)).replace_schema_metadata()


def save_index(index: pa.Table, source: Path, cache: Path | None) -> None:
    """Keep an index for the next start; where no file can be written, that is only warned of."""
    path = index_path(source, cache)
    described = index.replace_schema_metadata({_SOURCE_KEY: _identity(source)})
    try:
        with whole_file(path) as partial:
            pq.write_table(described, partial, compression="zstd")
    except OSError as error:
        log.warning("%s cannot be kept (%s); --cache names another place", path, error.strerror)


def _identity(source: Path) -> bytes:
    status = source.stat()
    fields = {
        "version": _FORMAT_VERSION,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }
    return json.dumps(fields).encode()
