"""The share of a machine that this process may use: of its cores and its memory.

In a container or a Slurm job, the machine's own numbers are far too large. The smallest of these counts: the CPU
affinity, the quotas of the control groups (version 1 and 2), and the job's limits in Slurm.
"""

import ctypes
import importlib.metadata
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

MIB = 2**20

_OPENCV = {
    "AVX": {"avx"},
    "AVX2": {"avx2"},
    "FP16": {"f16c"},
    "AVX512-SKX": {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"},
}
"""OpenCV's names of the instruction sets that it chooses at run time, and the kernel's names; OpenCV complains of one
that the processor lacks."""
_NUMPY = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"
_NUMPY_BEFORE_2_4 = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
"""NumPy's names of the instruction sets that it chooses at run time; it warns of unknown names."""


def alike(root: Path = Path("/")) -> dict[str, str]:
    """Environment variables that make NumPy and OpenCV use the same instructions on every x86-64 processor.

    Floating-point sums round differently with wider instructions, so some pixels, and now and then a decision, would
    depend on the machine. No cost could be measured (docs/determinism.md). Set them before NumPy and OpenCV are
    imported. Empty on other processors.
    """
    flags = {word for line in _lines(root / "proc/cpuinfo") if line.startswith("flags") for word in line.split()}
    if "sse2" not in flags:
        return {}
    there = [name for name, needed in _OPENCV.items() if needed <= flags]
    version = tuple(map(int, importlib.metadata.version("numpy").split(".")[:2]))
    names = _NUMPY if version >= (2, 4) else _NUMPY_BEFORE_2_4
    variables = {"OPENCV_IPP": "sse42", "NPY_DISABLE_CPU_FEATURES": names, "OPENBLAS_CORETYPE": "Nehalem"}
    return variables | ({"OPENCV_CPU_DISABLE": ",".join(there)} if there else {})


def keep_memory() -> None:
    """Let this process keep up to 64 MB that it frees, for its next arrays. No effect without glibc.

    By default glibc returns a large array to the system at once, and the next one costs a page fault every 4 kB: a
    seventh of the time of all filters. glibc sets the same values itself once an array of 32 MB was freed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    m_mmap_threshold, m_trim_threshold = -3, -1  # of malloc.h
    mallopt(m_mmap_threshold, 32 * MIB)
    mallopt(m_trim_threshold, 64 * MIB)


def cores(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use, at least 1."""
    machine = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    quotas = [math.ceil(quota) for quota in _cpu_quotas(root)]
    return max(1, min([machine, allowed, *quotas, *_slurm_cores(environment)]))


def memory_bytes(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Bytes of memory that this process and its children may use together."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_memory_limits(root), *_slurm_memory(environment)])


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Cores, as quota over period, of every control group around this process."""
    for group in _groups(root, "cpu"):
        words = _words(group / "cpu.max")  # version 2: "200000 100000", or "max 100000"
        if not words:
            words = [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):  # -1 or max: no limit
            yield int(words[0]) / int(words[1])


def _memory_limits(root: Path) -> Iterator[int]:
    for group in _groups(root, "memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        yield from (int(word) for word in words[:1] if word.isdigit())


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups around this process, as far as they are mounted here."""
    mounts = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount = mounts
        elif controller in controllers.split(","):
            mount = next((m for m in (mounts / controllers, mounts / controller) if m.is_dir()), mounts)
        else:
            continue
        group = Path(path.strip("/"))
        for inner in (group, *group.parents):
            yield mount / inner


def _slurm_cores(environment: Mapping[str, str]) -> list[int]:
    counts = [environment.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")]
    return [int(count) for count in counts if count.isdigit()][:1]


def _slurm_memory(environment: Mapping[str, str]) -> list[int]:
    node, core = environment.get("SLURM_MEM_PER_NODE", ""), environment.get("SLURM_MEM_PER_CPU", "")
    if node.isdigit() and int(node):  # 0: all of the node's
        return [int(node) * MIB]
    if core.isdigit() and (cores := _slurm_cores(environment)):
        return [int(core) * cores[0] * MIB]
    return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path)[:1] for word in line.split()]
