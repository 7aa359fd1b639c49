"""Number of files decoded at once: by the limits of a container, read from trees as Linux shows them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from backfill_assets.ticks.workers import decode_workers, memory_bytes, processors

MB = 2**20
HERE = len(os.sched_getaffinity(0))
MEMORY = psutil.virtual_memory().total


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Write files below a root; the process itself may use 16 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    def write(**files: str) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n", encoding="ascii")
        return tmp_path

    return write


V2 = "sys/fs/cgroup"
CPU, MEMORY_V1 = f"{V2}/cpu", f"{V2}/memory"


def test_without_a_container_it_is_what_the_process_may_use(tmp_path):
    assert processors(tmp_path) == HERE
    assert memory_bytes(tmp_path) == MEMORY
    assert processors() <= HERE
    assert 0 < memory_bytes() <= MEMORY


def test_a_container_sees_its_own_limits_as_those_of_the_topmost_folder(machine):
    root = machine(
        **{"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "150000 100000", f"{V2}/memory.max": str(900 * MB)}
    )
    assert processors(root) == 2
    assert memory_bytes(root) == 900 * MB
    assert decode_workers(root) == 1


def test_the_tightest_of_the_groups_around_the_process_counts(machine):
    root = machine(
        **{
            "proc/self/cgroup": "0::/jobs/runs",
            f"{V2}/jobs/cpu.max": "300000 100000",
            f"{V2}/jobs/memory.max": "max",
            f"{V2}/jobs/runs/cpu.max": "max 100000",
            f"{V2}/jobs/runs/memory.max": str(4096 * MB),
        }
    )
    assert processors(root) == 3
    assert memory_bytes(root) == 4096 * MB
    assert decode_workers(root) == 3


def test_control_groups_of_version_1_count_as_well(machine):
    root = machine(
        **{
            "proc/self/cgroup": "3:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/",
            f"{CPU}/cpu.cfs_quota_us": "800000",
            f"{CPU}/cpu.cfs_period_us": "100000",
            f"{MEMORY_V1}/memory.limit_in_bytes": str(1536 * MB),
        }
    )
    assert processors(root) == 8
    assert memory_bytes(root) == 1536 * MB
    assert decode_workers(root) == 3


@pytest.mark.parametrize(("cpu", "memory"), [("max 100000", "max"), ("100000 0", "0x10"), ("", "")])
def test_no_limit_and_texts_that_are_none_leave_the_machine(machine, cpu, memory):
    root = machine(**{"proc/self/cgroup": "0::/", f"{V2}/cpu.max": cpu, f"{V2}/memory.max": memory})
    assert processors(root) == 16
    assert memory_bytes(root) == MEMORY


def test_limits_of_version_1_that_are_none_leave_the_machine(machine):
    root = machine(
        **{
            "proc/self/cgroup": "3:memory:/\n1:cpu:/",
            f"{CPU}/cpu.cfs_quota_us": "-1",
            f"{CPU}/cpu.cfs_period_us": "100000",
            f"{MEMORY_V1}/memory.limit_in_bytes": "9223372036854771712",
        }
    )
    assert processors(root) == 16
    assert memory_bytes(root) == MEMORY


def test_at_least_one_file_is_decoded(machine):
    root = machine(
        **{"proc/self/cgroup": "0::/", f"{V2}/cpu.max": "10000 100000", f"{V2}/memory.max": str(MB)}
    )
    assert processors(root) == 1
    assert decode_workers(root) == 1
