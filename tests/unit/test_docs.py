"""What the pages tell a reader to type exists; what they do not have run says why."""

from pathlib import Path

import click
import pytest

from bigearth_prep.cli import commands
from dinomm_train.cli import cli
from tests.doc_blocks import PAGES, ROOT, Block, Invocation, blocks_of, invocations_of

GROUPS = {"bigearth-prep": commands, "dinomm-train": cli}


def name_of_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


def unknown_words(invocation: Invocation) -> list[str]:
    """Commands and options that do not exist; `…` and the like stand for more."""
    group = GROUPS[invocation.program]
    known = {"--help", "-h", "--version", "-v", "-vv", *options_of(group)}
    words = list(invocation.words)
    name = next((word for word in words if not word.startswith("-")), None)
    unknown = []
    if name is not None and name.isascii():
        command = group.commands.get(name)
        if command is None:
            return [name]
        known |= options_of(command)
    for word in words:
        option = word.partition("=")[0]
        is_option = option.startswith("-") and not option.lstrip("-")[:1].isdigit()
        if is_option and option.strip("-") and option not in known:
            unknown.append(option)
    return unknown


def options_of(command: click.Command) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of_page)
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    found = {call.where: (call.words, unknown_words(call)) for call in invocations_of(page)}
    assert {where: call for where, call in found.items() if call[1]} == {}


@pytest.mark.parametrize("page", PAGES, ids=name_of_page)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    reasons = {str(block): block.reason for block in blocks_of(page) if block.reason is not None}
    assert all(len(reason.split()) >= 2 for reason in reasons.values()), reasons
    # A comment that is misspelt would be no comment of ours.
    text = page.read_text(encoding="utf-8")
    kept = len(reasons) + sum(bool(block.afresh) for block in blocks_of(page))
    assert text.count("<!-- not run") + text.count("<!-- afresh") == kept


def test_what_does_not_exist_is_seen() -> None:
    for words, unknown in (
        ("build-shards --s2 A --s3=B -vv", ["--s3"]),
        ("paint", ["paint"]),
        ("--version", []),
        ("stats dataset --seed -1", []),
    ):
        invocation = Invocation("", "bigearth-prep", tuple(words.split()))
        assert unknown_words(invocation) == unknown


def test_a_block_is_read_with_the_comment_above_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a GPU -->\n```sh\nsrun dinomm-train pretrain d\n```\n"
        "\n<!-- afresh: d -->\n```sh\ndinomm-train evaluate run d --out s\n```\n"
    )
    first, second = blocks_of(page)
    assert (first.reason, first.line, second.afresh) == ("needs a GPU", 3, ("d",))


def test_calls_are_found_in_blocks_and_in_running_text() -> None:
    page = ROOT / "README.md"
    calls = list(invocations_of(page))
    assert {call.program for call in calls} == set(GROUPS)
    assert any(call.words[:1] == ("pretrain",) and "--out" in call.words for call in calls)
    assert isinstance(blocks_of(page)[0], Block)
