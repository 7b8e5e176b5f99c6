"""Where the names of a small graph stand in a picture: springs first, then whatever overlaps is pushed apart.

Springs and repulsion: Fruchterman & Reingold 1991. For the few dozen names of a neighbourhood; time grows with their
square.
"""

from collections.abc import Sequence

import numpy as np

STEPS = 400
TRIES = 6
"""Layouts from different beginnings, of which the clearest is taken."""
GAP = 14.0
"""Pixels kept free around a name."""


def places(
    sizes: Sequence[tuple[float, float]], joined: Sequence[tuple[int, int]], length: float, seed: int = 0
) -> np.ndarray:
    """Centres of boxes [n, 2] in pixels, the first one in the middle.

    Args:
        sizes: width and height of each box.
        joined: which boxes a line joins.
        length: of a line, about.
    """
    n = len(sizes)
    boxes = np.array(sizes, float).reshape(n, 2)
    if n < 2:
        return np.zeros((n, 2))
    tried = [_springs(boxes, joined, length, seed + turn) for turn in range(TRIES)]
    return min(tried, key=lambda at: _faults(at, boxes, joined))


def _springs(boxes: np.ndarray, joined: Sequence[tuple[int, int]], length: float, seed: int) -> np.ndarray:
    n = len(boxes)
    rng = np.random.default_rng(seed)
    angle = np.concatenate([[0.0], rng.permutation(np.linspace(0, 2 * np.pi, n - 1, endpoint=False))])
    at = length * np.stack([1.5 * np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 1, (n, 2))
    at[0] = 0.0
    pull = np.zeros((n, n))
    for a, b in joined:
        pull[a, b] = pull[b, a] = a != b
    for step in range(STEPS):
        away = at[:, None] - at[None]
        apart = np.maximum(np.hypot(away[..., 0] / 1.5, away[..., 1]), 1.0)
        force = length**2 / apart**2 - pull * apart / length
        move = (away * force[..., None] / apart[..., None]).sum(1)
        size = np.maximum(np.hypot(move[:, 0], move[:, 1]), 1e-9)
        limit = length * (1 - step / STEPS) * 0.3 + 0.5
        at += move / size[:, None] * np.minimum(size * length * 0.1, limit)[:, None]
        at -= at[0]
    return _pushed_apart(at, boxes)


def _faults(at: np.ndarray, boxes: np.ndarray, joined: Sequence[tuple[int, int]]) -> float:
    """How often a line runs through a box that it doesn't lead to or crosses another one; lines' lengths break ties."""
    ends = sorted({(min(a, b), max(a, b)) for a, b in joined if a != b})
    t = np.linspace(0.08, 0.92, 25)[:, None]
    faults = 0.0
    for number, (a, b) in enumerate(ends):
        points = at[a] * (1 - t) + at[b] * t
        others = [i for i in range(len(at)) if i not in (a, b)]
        inside = np.abs(points[:, None] - at[others]) < boxes[others] / 2 + 4
        faults += 3.0 * float(inside.all(-1).any(0).sum())
        faults += sum(_crossing(at[a], at[b], at[c], at[d]) for c, d in ends[:number] if not {a, b} & {c, d})
        faults += 1e-4 * float(np.hypot(*(at[a] - at[b])))
    return faults


def _crossing(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> bool:
        return bool((q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) != side(a, b, d) and side(c, d, a) != side(c, d, b)


def _pushed_apart(at: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    for _ in range(200):
        moved = False
        for a in range(len(at)):
            for b in range(a):
                away = at[a] - at[b]
                inside = (boxes[a] + boxes[b]) / 2 + GAP - np.abs(away)
                if (inside <= 0).any():
                    continue
                axis = int(inside.argmin())
                sign = 1.0 if away[axis] >= 0 else -1.0
                at[a, axis] += sign * inside[axis] / 2
                at[b, axis] -= sign * inside[axis] / 2
                moved = True
        if not moved:
            break
    return at
