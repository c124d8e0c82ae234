"""What a machine and its control groups leave to a process, from made files."""

from pathlib import Path

import pytest

from dinomm_train.doctor.memory import available_memory_bytes

MB = 1_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8,192 MB left, most of it files that it holds in memory."""
    text = "MemTotal: 9000000 kB\nMemFree: 1000 kB\nMemAvailable: 8000000 kB\nHugePages_Free: 0\n"
    write(tmp_path / "proc/meminfo", text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def join_group(root: Path, line: str) -> None:
    """The process is in this group of version 2, or of version 1 for memory."""
    write(root / "proc/self/cgroup", f"1:cpu:/elsewhere\n{line}\n")


def limit_v2(group: Path, limit: str, *, used: int) -> None:
    write(group / "memory.max", f"{limit}\n")
    write(group / "memory.current", f"{used}\n")
    write(group / "memory.stat", f"anon 7\nfile 99\ninactive_file {3 * MB}\nactive_file {2 * MB}\n")


def test_without_groups_it_is_what_the_machine_could_make_free(root: Path) -> None:
    assert available_memory_bytes(root) == 8_192 * MB


def test_a_group_leaves_its_limit_less_what_is_used_and_is_no_file(root: Path) -> None:
    join_group(root, "0::/job")
    limit_v2(root / "sys/fs/cgroup/job", str(100 * MB), used=40 * MB)
    assert available_memory_bytes(root) == 65 * MB


def test_the_groups_around_it_limit_it_as_well(root: Path) -> None:
    join_group(root, "0::/job/step/task")
    groups = root / "sys/fs/cgroup"
    limit_v2(groups / "job", str(50 * MB), used=40 * MB)
    limit_v2(groups / "job/step", "max", used=40 * MB)
    limit_v2(groups / "job/step/task", str(100 * MB), used=40 * MB)
    limit_v2(groups / "other", str(MB), used=0)
    assert available_memory_bytes(root) == 15 * MB


def test_a_group_larger_than_the_machine_limits_nothing(root: Path) -> None:
    join_group(root, "0::/")
    limit_v2(root / "sys/fs/cgroup", str(10**18), used=40 * MB)
    assert available_memory_bytes(root) == 8_192 * MB


def test_version_1_has_a_hierarchy_for_memory_and_other_names(root: Path) -> None:
    # In a container, whose host's path leads nowhere and whose own group is at the top.
    join_group(root, "4:memory,hugetlb:/docker/0123")
    group = root / "sys/fs/cgroup/memory"
    write(group / "memory.limit_in_bytes", f"{100 * MB}\n")
    write(group / "memory.usage_in_bytes", f"{70 * MB}\n")
    stat = f"active_file 1\ntotal_inactive_file {3 * MB}\ntotal_active_file {4 * MB}\n"
    write(group / "memory.stat", stat)
    assert available_memory_bytes(root) == 37 * MB


def test_this_machine_has_some_left() -> None:
    assert available_memory_bytes() > MB
