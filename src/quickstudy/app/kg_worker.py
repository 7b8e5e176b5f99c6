"""One of several processes that read the documents of a graph: `python -m quickstudy.app.kg_worker STORE MODEL BATCH`.

It ends with its parent, by Ctrl-C, or when no document is left; what it has finished is in the file by then. What it
writes to stdout is a line of JSON: how many documents were done and failed, or what went wrong.
"""

import json
import os
import sys

from quickstudy.core.errors import QuickstudyError


def main(store: str, model: str, batch: int) -> int:
    """Read what waits. Exit codes as the command line's."""
    from quickstudy.domains.kg.graph.store import GraphStore
    from quickstudy.domains.kg.use import GraphModel, extract

    parent = os.getppid()

    def told(_: int) -> None:
        if os.getppid() != parent:  # killed, perhaps by kill -9: nobody waits for this one
            raise KeyboardInterrupt

    try:
        with GraphStore(store, create=False) as graph:
            done = extract(graph, GraphModel.load(model), batch=batch, progress=told)
    except QuickstudyError as problem:
        print(json.dumps({"problem": str(problem)}), flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps(done), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
