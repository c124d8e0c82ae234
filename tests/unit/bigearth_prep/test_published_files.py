"""What is said of an archive's checksums beside the published ones."""

import logging

import pytest

from bigearth_prep.published_files import PUBLISHED, ArchiveSums, compare_with_published

NAME = "BigEarthNet-S2.tar.zst"
OTHER = "0" * 32


def said(caplog: pytest.LogCaptureFixture, name: str, sums: ArchiveSums) -> list[str]:
    with caplog.at_level(logging.INFO):
        compare_with_published(name, sums)
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def test_published_sums_are_md5s_and_no_two_archives_share_one() -> None:
    tars = [sums.tar for sums in PUBLISHED.values() if sums.tar]
    every = {sums.packed for sums in PUBLISHED.values()} | set(tars)
    assert all(len(text) == 32 and int(text, 16) for text in every)
    assert len(tars) == 2
    assert len(every) == len(PUBLISHED) + 2 - 1  # one archive goes by two names


def test_an_archive_as_published_is_said_to_be_so(caplog: pytest.LogCaptureFixture) -> None:
    lines = said(caplog, NAME, PUBLISHED[NAME])
    assert [line for line in lines if line.endswith("as published")] == [
        f"INFO {NAME} is as published",
        f"INFO the tar in {NAME} is as published",
    ]


def test_a_difference_is_a_warning_with_both_sums(caplog: pytest.LogCaptureFixture) -> None:
    lines = said(caplog, NAME, ArchiveSums(OTHER, PUBLISHED[NAME].tar))
    (warning,) = [line for line in lines if line.startswith("WARNING")]
    assert OTHER in warning
    assert PUBLISHED[NAME].packed in warning


def test_only_what_was_published_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    lines = said(caplog, "BigEarthNet-S1-v1.0.tar.gz", ArchiveSums(OTHER, OTHER))
    assert len([line for line in lines if line.startswith("WARNING")]) == 1
    caplog.clear()
    assert said(caplog, "mine.tar.gz", ArchiveSums(OTHER, OTHER)) == [
        f"INFO mine.tar.gz: md5 {OTHER}, its tar {OTHER}"
    ]
