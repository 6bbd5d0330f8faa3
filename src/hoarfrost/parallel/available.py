"""How many CPU cores this process may use: of the machine, of its control group, of its batch job."""

import math
import os
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
QUOTA, PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def available_cores() -> int:
    """Cores that the process may run on, no more than a container's quota, rounded up, and SLURM_CPUS_PER_TASK say."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [usable]
    quota = _quota()
    if quota is not None:
        limits.append(math.ceil(quota))
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if asked.isdecimal():
        limits.append(int(asked))
    return max(1, min(limits))


def _quota() -> float | None:
    """Cores' worth of time that the control group allows, by either version of Linux's interface; None without one."""
    for words in (_words(CPU_MAX), _words(QUOTA) + _words(PERIOD)):
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
            return int(words[0]) / int(words[1])
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
