"""When a patch was acquired, from the places where the archives say it truly."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_S1_TIME = re.compile(r"^S1[A-D]_IW_GRDH_1S[DS][VH]_([0-9]{8}T[0-9]{6})_")
_S2_V2_TIME = re.compile(r"^S2[A-D]_MSIL2A_([0-9]{8}T[0-9]{6})_N[0-9]{4}_R[0-9]{3}_T")
_V1_DATE_KEYS = ("acquisition_date", "acquisition_time")


def s1_time(s1_name: str) -> datetime | None:
    """The scene's start in UTC: in S1 names of both versions it is whole and true."""
    return _time_in(_S1_TIME, s1_name)


def s2_time(key: str, metadata: Mapping[str, Any]) -> datetime | None:
    """The sensing time in UTC: from the JSON (v1), else from a v2 name.

    A v1 name is never parsed: its time may lack a digit, count 60 seconds, or be shifted.
    """
    for name in _V1_DATE_KEYS:
        if isinstance(text := metadata.get(name), str):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    return _time_in(_S2_V2_TIME, key)


def _time_in(pattern: re.Pattern[str], name: str) -> datetime | None:
    match = pattern.match(name)
    if match is None:
        return None
    return datetime.fromisoformat(match.group(1)).replace(tzinfo=UTC)
