"""Row core.7: a meta-gradient step against a Python loop over tasks. See quickstudy.bench.engine."""

from quickstudy.bench.engine import main

if __name__ == "__main__":
    main()
