"""The files that a pairs table names, to rasters."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from bigearth_prep.bands import SENSORS, Band, Sensor, bands_of
from bigearth_prep.collection import SensorFiles
from bigearth_prep.pair_source import PairFacts, PlanRow
from bigearth_prep.patch import PatchError, Raster, RejectReason
from bigearth_prep.patch_source import Content, archive_gone, read_file
from bigearth_prep.raster import Decoder, decode_band, decode_stack


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFiles:
    """Where the files of a table lie, and what they hold; nothing of it needs to be opened."""

    roots: Mapping[Sensor, Path]
    """Folder to which paths in the table are relative."""

    files: Mapping[Sensor, SensorFiles]
    trusts_grids: bool
    """Files may lack a grid."""

    @contextmanager
    def open(self) -> Iterator["ListedFiles"]:
        """The files, for the time of the block.

        Raises:
            PrepError: their folder is gone.
        """
        for root in self.roots.values():
            if not root.is_dir():
                raise archive_gone(root)
        yield self

    def read_facts(self, row: PlanRow) -> PairFacts:
        """What the table says."""
        return PairFacts(tuple(row["labels"]), row["s1_time"], row["s2_time"])

    def read_bands(
        self, row: PlanRow, bands: Sequence[Band], counts: Counter[Decoder]
    ) -> dict[Band, Raster]:
        """The rasters of a pair."""
        rasters: dict[Band, Raster] = {}
        for sensor in SENSORS:
            if own := bands_of(sensor, bands):
                is_stack = (
                    self.files[sensor].kind == "stacked" and len(self.files[sensor].bands) > 1
                )
                read = self._read_stack if is_stack else self._read_each
                rasters |= read(sensor, row[sensor], own, counts)
        return rasters

    def _read_stack(
        self, sensor: Sensor, cell: list[str], bands: Sequence[Band], counts: Counter[Decoder]
    ) -> dict[Band, Raster]:
        held = self.files[sensor].bands
        if len(cell) != 1:
            raise PatchError(
                RejectReason.UNREADABLE_FILE,
                f"{sensor} names {len(cell)} files, and its bands are stacked in one",
            )
        content = self._content(sensor, cell[0])
        counts["rasterio"] += 1
        return decode_stack(content, cell[0], held, bands, needs_grid=not self.trusts_grids)

    def _read_each(
        self, sensor: Sensor, cell: list[str], bands: Sequence[Band], counts: Counter[Decoder]
    ) -> dict[Band, Raster]:
        needs_grid = not self.trusts_grids
        return {
            band: decode_band(
                self._content(sensor, path), path, band, counts, needs_grid=needs_grid
            )
            for band, path in paths_of_bands(self.files[sensor], cell, bands).items()
        }

    def _content(self, sensor: Sensor, path: str) -> Content:
        root = self.roots[sensor]
        try:
            return read_file(str(root / path))
        except (FileNotFoundError, NotADirectoryError) as error:
            if not root.is_dir():
                raise archive_gone(root) from error
            raise PatchError(RejectReason.MISSING_BAND, path) from error
        except OSError as error:
            what = f"{path}: {error.strerror}"
            raise PatchError(RejectReason.UNREADABLE_FILE, what) from error


def paths_of_bands(
    files: SensorFiles, cell: Sequence[str], bands: Sequence[Band]
) -> dict[Band, str]:
    """Which file holds each of the bands, where files hold one band each.

    Raises:
        PatchError: a band has no file among those of the cell, or several.
    """
    if files.kind == "folder":
        folder = _only(cell, "folder")
        return {band: f"{folder}/{files.file_name(band)}" for band in bands}
    if files.kind == "stacked":
        return {files.bands[0]: _only(cell, "file")}
    if files.pattern is None:
        if len(cell) != len(files.bands):
            raise PatchError(
                RejectReason.MISSING_BAND,
                f"{len(cell)} files are listed, one is expected for each of "
                f"{', '.join(band.name for band in files.bands)}",
            )
        return {band: cell[files.bands.index(band)] for band in bands}
    return {band: _matching(cell, files.file_name(band), band) for band in bands}


def _only(cell: Sequence[str], what: str) -> str:
    if len(cell) != 1:
        raise PatchError(
            RejectReason.UNREADABLE_FILE, f"{len(cell)} paths are listed, one {what} is expected"
        )
    return cell[0].rstrip("/")


def _matching(cell: Sequence[str], name: str, band: Band) -> str:
    found = [path for path in cell if fnmatchcase(PurePosixPath(path).name, name)]
    if len(found) != 1:
        raise PatchError(
            RejectReason.MISSING_BAND,
            f"{band.name}: {len(found)} of {len(cell)} listed files are named {name}, expected 1",
        )
    return found[0]
