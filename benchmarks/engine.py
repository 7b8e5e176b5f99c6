"""A step of meta-training against other libraries (learners.1 to 5, 12, 13) and a plain loop (core.7).

See quickstudy.bench.engine.
"""

import sys

from quickstudy.bench.engine import main
from quickstudy.core.errors import QuickstudyError

if __name__ == "__main__":
    try:
        sys.exit(main())
    except QuickstudyError as problem:
        sys.exit(str(problem))
