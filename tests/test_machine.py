"""The share of a machine, on folders laid out as the kernel lays out its control groups."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from crispedit import machine

GIB = 2**30
CASES = {
    "version 2, nested": (
        "0::/slurm/job_7/step_0\n",
        {
            "sys/fs/cgroup/slurm/job_7/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/slurm/job_7/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/slurm/job_7/step_0/cpu.max": "max 100000\n",
            "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
        },
    ),
    "version 2, in a container": (
        "0::/\n",
        {"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"},
    ),
    "version 2, of the host's names": (
        "0::/kubepods/pod1/c1\n",
        {"sys/fs/cgroup/cpu.max": "99000 100000\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"},
    ),
    "version 1": (
        "4:memory:/docker/c1\n3:cpu,cpuacct:/docker/c1\n",
        {
            "sys/fs/cgroup/cpu,cpuacct/docker/c1/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/c1/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/docker/c1/memory.limit_in_bytes": f"{GIB}\n",
        },
    ),
}
NO_LIMIT = (
    "4:memory:/\n3:cpu,cpuacct:/\n0::/\n",
    {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
    },
)


def lay_out(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("case", CASES)
def test_a_quota_is_the_share(tmp_path: Path, case: str):
    root = lay_out(tmp_path, *CASES[case])
    assert machine.cores(root, {}) == 1
    assert machine.memory_bytes(root, {}) == GIB


def test_without_a_quota_the_machine_is_the_share(tmp_path: Path):
    root = lay_out(tmp_path, *NO_LIMIT)
    assert machine.cores(root, {}) == len(os.sched_getaffinity(0))
    assert machine.memory_bytes(root, {}) == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_slurm_says_what_a_job_may_use(tmp_path: Path):
    root = lay_out(tmp_path, *NO_LIMIT)
    assert machine.cores(root, {"SLURM_CPUS_PER_TASK": "1"}) == 1
    assert machine.memory_bytes(root, {"SLURM_MEM_PER_NODE": "1024"}) == GIB
    assert machine.memory_bytes(root, {"SLURM_CPUS_ON_NODE": "2", "SLURM_MEM_PER_CPU": "512"}) == GIB
    assert machine.memory_bytes(root, {"SLURM_MEM_PER_NODE": "0"}) > GIB, "0 is all of the node's"


def test_the_affinity_counts():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from crispedit import machine; print(machine.cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_instructions_are_those_that_every_processor_has(tmp_path: Path):
    assert machine.alike(lay_out(tmp_path / "arm", "", {"proc/cpuinfo": "Features : fp asimd\n"})) == {}
    old = lay_out(tmp_path / "old", "", {"proc/cpuinfo": "flags : fpu sse sse2 sse4_2 avx\n"})
    assert machine.alike(old)["OPENCV_CPU_DISABLE"] == "AVX", "OpenCV complains of what is not there"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_that_was_freed_is_used_again():
    code = (
        "import resource, numpy as np\n"
        "from crispedit import machine\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20):\n"
        "        np.ones(12_000_000, np.uint8)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "first = faults(); machine.keep_memory(); faults(); print(faults() < first / 10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.skipif(not machine.alike(), reason="nothing to switch off on this processor")
def test_numpy_and_opencv_obey_and_say_nothing():
    code = (
        "import cv2, numpy; from numpy._core._multiarray_umath import __cpu_features__ as f\n"
        "print([n for n in ('X86_V3', 'X86_V4') if f.get(n)], cv2.checkHardwareSupport(11))"
    )
    environment = {**os.environ, **machine.alike()}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "[] False\n"
    assert done.stderr == ""
