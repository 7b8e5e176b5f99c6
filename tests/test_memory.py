import subprocess
import sys

import pytest

HOLES = """
from pathlib import Path
from quickstudy.core.memory import give_back

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

begin = resident()
held = [b"x" * 100_000 for _ in range(2000)]
last = b"x" * 100_000   # above the others, so that the end of the heap isn't free
full = resident()
del held
kept = resident()
give_back()
print(begin, full, kept, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_what_lies_free_between_what_is_used_goes_back_to_the_system():
    out = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True).stdout
    begin, full, kept, after = map(float, out.split())
    assert full - begin > 150
    assert kept - begin > 100  # freed, and still there
    assert after - begin < 50
