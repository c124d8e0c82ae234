"""Times that are true, and names that must not be asked."""

from datetime import UTC, datetime

import pytest

from bigearth_prep.acquisition import s1_time, s2_time


def test_radar_names_tell_their_time() -> None:
    found = s1_time("S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48")
    assert found == datetime(2017, 6, 13, 16, 50, 43, tzinfo=UTC)


def test_v2_names_tell_their_time() -> None:
    found = s2_time("S2B_MSIL2A_20180204T094159_N9999_R036_T35VPK_00_03", {})
    assert found == datetime(2018, 2, 4, 9, 41, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["S2B_MSIL2A_20180204T94161_0_3", "S2A_MSIL2A_20170613T101031_0_3"]
)
def test_v1_names_are_never_parsed(name: str) -> None:
    assert s2_time(name, {}) is None
    found = s2_time(name, {"acquisition_date": "2018-02-04 09:41:56"})
    assert found == datetime(2018, 2, 4, 9, 41, 56, tzinfo=UTC)


def test_other_names_have_no_known_time() -> None:
    assert s1_time("my_radar_patch_7") is None
