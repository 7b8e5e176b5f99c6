"""How many threads to compute with: the physical cores that nobody else is using."""

import os
from pathlib import Path

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def use_threads(threads: int | None = None) -> int:
    """Set the number of threads of this process and return it. To be called before torch is imported.

    None keeps what the environment says (OMP_NUM_THREADS), or else takes the free cores. More threads than free cores
    make everything slower, and two threads on one physical core don't help arithmetic.
    """
    set_already = os.environ.get(VARIABLES[0], "")
    if threads is None:
        threads = int(set_already) if set_already.isdigit() and int(set_already) else free_cores()
    for variable in VARIABLES:
        os.environ[variable] = str(threads)
    return threads


def free_cores() -> int:
    """Physical cores that this process may use, less those that are busy; at least one."""
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(_physical(), _quota()) - round(busy))


def _physical() -> int:
    """Cores of which this process may use a thread."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for cpu in usable:
        try:
            cores.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text())
        except OSError:
            return len(usable)  # no such files: not Linux, or hidden
    return len(cores)


def _quota() -> int:
    """Cores that a container is given."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):  # none, or "max"
        return os.cpu_count() or 1
