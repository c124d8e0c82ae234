"""Memory that a process may still take, files that the system could let go of included."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where control groups of one version say what their processes may take."""

    folder: str
    limit: str
    usage: str
    files: tuple[str, str]
    """Lines of `memory.stat`: files in memory, which are dropped before anything is refused."""


_V1 = _Hierarchy(
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_V2 = _Hierarchy("sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file"))


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that the machine has left, at most what this process's control groups leave of it."""
    machine = 1024 * _numbers(root / "proc/meminfo")["MemAvailable:"]
    return min([machine, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> Iterator[int]:
    """What each group around this process leaves, of those that have a limit."""
    file = root / "proc/self/cgroup"
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy = _V1 if controllers else _V2
        top = root / hierarchy.folder
        # A container may see the path that its host has, and itself at the top.
        innermost = top / path.lstrip("/")
        for group in (innermost, *innermost.parents):
            if group.is_relative_to(top) and (group / hierarchy.limit).is_file():
                yield from _left_by_group(group, hierarchy)


def _left_by_group(group: Path, hierarchy: _Hierarchy) -> Iterator[int]:
    limit = (group / hierarchy.limit).read_text(encoding="utf-8").strip()
    if limit == "max":
        return
    used = int((group / hierarchy.usage).read_text(encoding="utf-8"))
    stat = _numbers(group / "memory.stat")
    yield int(limit) - used + sum(stat[name] for name in hierarchy.files)


def _numbers(file: Path) -> dict[str, int]:
    """The first number of each line, by the word before it."""
    lines = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
    return {words[0]: int(words[1]) for words in lines}
