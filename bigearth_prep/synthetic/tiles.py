"""Real tiles and scenes of BigEarthNet: where and when the made-up patches lie.

Facts from the official BigEarthNet tables (CDLA-Permissive-1.0): UTM zones and origins of the
tiles, name prefixes of both versions, the Sentinel-1 scene most often paired with each, and how
often each class and snow occur. Any two scenes differ in their v1 prefix, which names no tile.
"""

import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


@dataclass(frozen=True, slots=True)
class Scene:
    """One Sentinel-2 product over one tile, and the Sentinel-1 scene nearest to it."""

    s2_satellite: str
    v1_stamp: str
    """Date and time in v1 names; the time may lack its leading zero or hold 60 seconds or more."""

    sensing_time: str
    """True time of day as `hhmmss`, which v2 names carry."""

    relative_orbit: int
    s1_satellite: str
    s1_stamp: str
    """Date and time of the Sentinel-1 scene, always valid."""

    snow_share: float = 0.0
    """Share of this scene's patches that the official list flags as snow."""

    @property
    def v1_prefix(self) -> str:
        """How v1 patch names begin."""
        return f"{self.s2_satellite}_MSIL2A_{self.v1_stamp}"

    @property
    def v2_prefix(self) -> str:
        """How v2 product and patch names begin."""
        return (
            f"{self.s2_satellite}_MSIL2A_{self.v1_stamp[:8]}T{self.sensing_time}"
            f"_N9999_R{self.relative_orbit:03}"
        )

    @property
    def s1_prefix(self) -> str:
        """How the names of the Sentinel-1 scene and its patches begin."""
        return f"{self.s1_satellite}_IW_GRDH_1SDV_{self.s1_stamp}"

    @property
    def s1_product(self) -> str:
        """Full name of the Sentinel-1 product; end time, orbit and checksum are made up."""
        end = self.s1_sensing + timedelta(seconds=25)
        mark = f"{zlib.crc32(self.s1_prefix.encode()):08X}"
        orbit = int(mark, 16) % 30_000
        return f"{self.s1_prefix}_{end:%Y%m%dT%H%M%S}_{orbit:06}_{mark[:6]}_{mark[-4:]}"

    @property
    def s2_sensing(self) -> datetime:
        """Sensing time of the optical image, UTC."""
        return _parse_utc(f"{self.v1_stamp[:8]}T{self.sensing_time}")

    @property
    def s1_sensing(self) -> datetime:
        """Sensing time of the radar image, UTC."""
        return _parse_utc(self.s1_stamp)


def _parse_utc(stamp: str) -> datetime:
    return datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of the Military Grid Reference System: 109.8 km of side, cut into patches."""

    name: str
    epsg: int
    ulx: int
    """Easting of the upper left corner, in metres."""

    uly: int
    """Northing of the upper left corner, in metres."""

    country: str
    class_percent: tuple[int, ...]
    """Share of the tile's patches that hold each of the 19 classes, in official order."""

    scenes: tuple[Scene, ...]

    @property
    def latitude_deg(self) -> float:
        """Latitude of the upper edge, to about half a degree."""
        return self.uly / 111_000


# fmt: off
TILES: tuple[Tile, ...] = (
    Tile(
        "29SNB", 32629, 499_980, 4_200_000, "Portugal",
        (5, 1, 35, 16, 12, 15, 26, 23, 33, 3, 2, 1, 27, 49, 1, 0, 1, 3, 24),
        (
            Scene("S2A", "20171002T112112", "112111", 37, "S1A", "20171004T183450"),
            Scene("S2B", "20180326T112109", "112109", 37, "S1B", "20180327T183408"),
        ),
    ),
    Tile(
        "29SNC", 32629, 499_980, 4_300_020, "Portugal",
        (6, 3, 53, 24, 23, 15, 5, 55, 34, 12, 14, 1, 2, 32, 1, 0, 2, 6, 12),
        (
            Scene("S2A", "20170813T112121", "112121", 37, "S1A", "20170812T182647"),
            Scene("S2B", "20180224T112109", "112109", 37, "S1B", "20180225T064227"),
            Scene("S2B", "20180515T112109", "112109", 37, "S1B", "20180515T063421"),
        ),
    ),
    Tile(
        "29UNB", 32629, 499_980, 6_200_040, "Ireland",
        (3, 0, 2, 0, 19, 3, 11, 0, 3, 5, 1, 5, 9, 3, 3, 21, 0, 3, 73),
        (Scene("S2A", "20180529T115401", "115401", 23, "S1A", "20180529T181504"),),
    ),
    Tile(
        "29UPU", 32629, 600_000, 5_900_040, "Ireland",
        (7, 1, 41, 0, 77, 7, 10, 0, 7, 21, 9, 2, 6, 12, 1, 8, 0, 2, 18),
        (
            Scene("S2A", "20170617T113321", "113321", 80, "S1A", "20170617T064724"),
            Scene("S2B", "20171112T114339", "114339", 123, "S1B", "20171112T181343"),
            Scene("S2B", "20180421T114349", "114349", 123, "S1A", "20180420T063917"),
        ),
    ),
    Tile(
        "31UER", 32631, 499_980, 5_600_040, "Belgium",
        (72, 9, 71, 0, 62, 66, 28, 0, 53, 5, 13, 0, 4, 3, 0, 1, 0, 4, 0),
        (
            Scene("S2B", "20170829T105019", "105019", 51, "S1A", "20170829T055029"),
            Scene("S2B", "20180506T105029", "105029", 51, "S1A", "20180508T055029"),
        ),
    ),
    Tile(
        "31UGR", 32631, 699_960, 5_600_040, "Luxembourg",
        (47, 6, 46, 2, 72, 45, 34, 0, 47, 41, 48, 0, 1, 7, 0, 3, 0, 3, 0),
        (
            Scene("S2A", "20180508T104032", "104031", 8, "S1A", "20180508T055029"),
            Scene("S2B", "20171015T104009", "104009", 8, "S1A", "20171016T055031"),
        ),
    ),
    Tile(
        "32TMT", 32632, 399_960, 5_300_040, "Switzerland",
        (50, 10, 65, 2, 27, 27, 9, 0, 20, 36, 65, 6, 2, 6, 0, 1, 0, 12, 0),
        (Scene("S2A", "20170818T103021", "103021", 108, "S1B", "20170818T054218"),),
    ),
    Tile(
        "33TWN", 32633, 499_980, 5_300_040, "Austria",
        (30, 3, 44, 1, 33, 43, 26, 0, 31, 51, 63, 7, 2, 3, 0, 0, 0, 1, 0),
        (
            Scene("S2B", "20171219T95410", "095409", 79, "S1B", "20171220T050912", 0.45),
            Scene("S2B", "20180421T100029", "100029", 122, "S1A", "20180421T165046", 0.04),
        ),
    ),
    Tile(
        "34TEP", 32634, 499_980, 4_900_020, "Serbia",
        (19, 1, 32, 3, 7, 59, 69, 0, 79, 2, 5, 11, 0, 38, 0, 1, 0, 3, 0),
        (
            Scene("S2B", "20170914T93030", "093029", 136, "S1A", "20170914T162451"),
            Scene("S2B", "20180201T093219", "093219", 136, "S1B", "20180130T162407", 0.17),
            Scene("S2B", "20180502T093039", "093039", 136, "S1A", "20180430T162450"),
        ),
    ),
    Tile(
        "34TFN", 32634, 600_000, 4_800_000, "Serbia",
        (4, 0, 8, 0, 18, 26, 39, 0, 85, 10, 16, 44, 0, 71, 0, 0, 0, 2, 0),
        (
            Scene("S2B", "20170802T092029", "092029", 93, "S1B", "20170802T043751"),
            Scene("S2B", "20170911T092019", "092019", 93, "S1A", "20170913T043820"),
            Scene("S2B", "20180509T092029", "092029", 93, "S1A", "20180511T043832"),
        ),
    ),
    Tile(
        "34UDG", 32634, 399_960, 6_200_040, "Lithuania",
        (4, 0, 3, 0, 2, 3, 2, 0, 2, 7, 8, 1, 3, 3, 6, 0, 0, 0, 94),
        (Scene("S2A", "20170720T100031", "100031", 122, "S1B", "20170719T045029"),),
    ),
    Tile(
        "34VER", 32634, 499_980, 7_100_040, "Finland",
        (7, 2, 27, 0, 0, 0, 21, 0, 1, 41, 51, 0, 0, 17, 0, 3, 1, 2, 58),
        (Scene("S2A", "20170613T101032", "101031", 22, "S1B", "20170613T044822"),),
    ),
    Tile(
        "34WFS", 32634, 600_000, 7_200_000, "Finland",
        (4, 1, 34, 0, 1, 0, 23, 0, 6, 62, 58, 0, 0, 37, 0, 8, 0, 4, 33),
        (
            Scene("S2B", "20170817T101019", "101019", 22, "S1B", "20170817T045612"),
            Scene("S2A", "20180228T101021", "101021", 22, "S1A", "20180228T154921", 0.98),
            Scene("S2B", "20170906T101020", "101019", 22, "S1A", "20170906T155749"),
            Scene("S2B", "20180521T100029", "100029", 122, "S1A", "20180521T044858"),
        ),
    ),
    Tile(
        "35UMB", 32635, 399_960, 6_200_040, "Lithuania",
        (11, 2, 45, 1, 48, 55, 60, 0, 41, 38, 61, 1, 0, 35, 0, 8, 0, 29, 0),
        (
            Scene("S2B", "20170924T93021", "093019", 136, "S1B", "20170924T155448"),
            Scene("S2A", "20180318T093031", "093031", 136, "S1B", "20180318T043418", 0.54),
        ),
    ),
    Tile(
        "35VNJ", 32635, 499_980, 6_900_000, "Finland",
        (2, 1, 12, 0, 0, 0, 20, 0, 9, 86, 79, 0, 0, 35, 0, 4, 0, 71, 0),
        (
            Scene("S2A", "20171101T94132", "094131", 36, "S1B", "20171101T153951", 0.45),
            Scene("S2B", "20180204T94160", "094159", 36, "S1A", "20180204T043318", 0.86),
            Scene("S2B", "20180515T094029", "094029", 36, "S1B", "20180517T154802"),
        ),
    ),
    Tile(
        "35VPK", 32635, 600_000, 7_000_020, "Finland",
        (3, 1, 15, 0, 0, 0, 20, 0, 19, 79, 77, 0, 0, 37, 0, 8, 0, 45, 0),
        (
            Scene("S2A", "20170701T093031", "093031", 136, "S1B", "20170629T153202"),
            Scene("S2B", "20170924T93020", "093019", 136, "S1A", "20170925T043256"),
            Scene("S2B", "20180204T94161", "094159", 36, "S1A", "20180204T043253", 0.81),
        ),
    ),
)
# fmt: on
