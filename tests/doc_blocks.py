"""The commands in the README and the pages of docs/, as a reader would copy them.

A fenced block of `sh` is run as it stands, unless a comment above it says otherwise:

    <!-- not run: REASON -->   nobody runs it here, for this reason; its options must exist still
    <!-- afresh: NAME … -->    these files or folders are removed before it runs
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docker" / "README.md")
PROGRAMS = {"bigearth-prep": "bigearth_prep", "dinomm-train": "dinomm_train"}

_BLOCK = re.compile(
    r"^(?:<!-- (?P<word>not run|afresh): (?P<rest>[^\n]+?) -->\n\s*)?"
    r"^(?P<indent> *)```sh\n(?P<text>.*?)^ *```$",
    flags=re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`")
_END_OF_COMMAND = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>", ")"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    text: str
    reason: str | None
    """Why it is not run; None where it is."""

    afresh: tuple[str, ...]
    """What is removed before it runs."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of one of the two commands."""

    where: str
    program: str
    words: tuple[str, ...]
    """What follows the program's name."""


def blocks_of(page: Path) -> list[Block]:
    """The page's blocks, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        word, rest = match["word"], match["rest"] or ""
        lines = match["text"].splitlines()
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start("text")) + 1,
                text="\n".join(line.removeprefix(match["indent"]) for line in lines) + "\n",
                reason=rest if word == "not run" else None,
                afresh=tuple(rest.split()) if word == "afresh" else (),
            )
        )
    return found


def invocations_of(page: Path) -> Iterator[Invocation]:
    """Every call of the commands in blocks, and in the running text between backquotes."""
    for block in blocks_of(page):
        for line in block.text.replace("\\\n", " ").splitlines():
            yield from _invocations_in(line, str(block))
    text = page.read_text(encoding="utf-8")
    for match in _INLINE.finditer(text):
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        yield from _invocations_in(match[1].replace("\n", " "), where)


def _invocations_in(line: str, where: str) -> Iterator[Invocation]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    names = PROGRAMS | {module: module for module in PROGRAMS.values()}
    for start, word in enumerate(words):
        module = names.get(word)
        is_module = word in PROGRAMS.values() and start > 0 and words[start - 1] == "-m"
        if module is None or not (word in PROGRAMS or is_module):
            continue
        program = next(name for name, package in PROGRAMS.items() if package == module)
        rest = words[start + 1 :]
        end = next((i for i, one in enumerate(rest) if one in _END_OF_COMMAND), len(rest))
        yield Invocation(where, program, tuple(rest[:end]))
