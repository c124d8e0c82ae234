"""Pairs of v1 as the Sentinel-1 patches themselves name them."""

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import pyarrow as pa

from bigearth_prep.archive import Archive, make_readable
from bigearth_prep.patch import PatchError
from bigearth_prep.patch_source import PatchPlace, PatchSource, open_source
from bigearth_prep.raster import read_patch_json

log = logging.getLogger(__name__)

_JSON_THREADS = 16
_PLACES_AT_A_TIME = 4096
"""Bounds the memory that waiting reads take."""


def read_json_pairs(s1: Archive) -> pa.Table:
    """Columns `key` and `s1_name`, from `corresponding_s2_patch` where a patch has one."""
    log.info("pairing through %s Sentinel-1 JSON files; --mapping is faster", f"{len(s1.names):,}")
    make_readable([s1])
    partners: list[str | None] = []
    places = s1.places()
    with open_source(s1.root) as source, ThreadPoolExecutor(_JSON_THREADS) as pool:
        while some := list(islice(places, _PLACES_AT_A_TIME)):
            partners += pool.map(partial(_partner_of, source), some)
    pairs = sorted(
        (name, key)
        for name, key in zip(s1.names.to_pylist(), partners, strict=True)
        if key is not None
    )
    return pa.table({"key": [key for _, key in pairs], "s1_name": [name for name, _ in pairs]})


def _partner_of(source: PatchSource, place: PatchPlace) -> str | None:
    try:
        partner = read_patch_json(source, place).get("corresponding_s2_patch")
    except PatchError:
        return None
    return partner if isinstance(partner, str) else None
