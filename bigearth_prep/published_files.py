"""Checksums of the archives as published, for comparison with what was downloaded."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ArchiveSums:
    """MD5 of an archive, as 32 hexadecimal digits."""

    packed: str
    """Of the compressed file."""

    tar: str | None
    """Of the tar in it; None where it was not published."""


PUBLISHED: Mapping[str, ArchiveSums] = {
    "BigEarthNet-S2.tar.zst": ArchiveSums(
        "2245ed2d1a93f6ce637d839bc856396e", "9ebc8cf8c95ee3fa5f21572baf8bf0d3"
    ),
    "BigEarthNet-S1.tar.zst": ArchiveSums(
        "a55eaa2cdf6a917e296bd6601ec1e348", "7043fc75bfa64b0951a727debf2cdba0"
    ),
    "BigEarthNet-S2-v1.0.tar.gz": ArchiveSums("5a64e9ce38deb036a435a7b59494924c", None),
    "BigEarthNet-v1.0.tar.gz": ArchiveSums("5a64e9ce38deb036a435a7b59494924c", None),
    "BigEarthNet-S1-v1.0.tar.gz": ArchiveSums("94ced73440dea8c7b9645ee738c5a172", None),
}
"""By file name: v2 from the authors' hash file (doi.org/10.5281/zenodo.10891137), v1 from
doi.org/10.5281/zenodo.12687186, its Sentinel-2 archive under its earlier name too."""


def compare_with_published(name: str, found: ArchiveSums) -> None:
    """Report an archive's checksums, and warn where the file published under its name has others.

    Archives have been issued again under an old name, so a difference is no error.
    """
    log.info("%s: md5 %s, its tar %s", name, found.packed, found.tar)
    published = PUBLISHED.get(name)
    if published is None:
        return
    sums = (
        (name, found.packed, published.packed),
        (f"the tar in {name}", found.tar, published.tar),
    )
    for what, own, theirs in sums:
        if theirs is None:
            continue
        if own == theirs:
            log.info("%s is as published", what)
        else:
            log.warning(
                "%s has md5 %s, published is %s: another edition, or a bad download",
                what,
                own,
                theirs,
            )
