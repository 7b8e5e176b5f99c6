"""A meta-gradient step as one compiled program: forward, inner loops and backward traced once to a flat graph.

No autograd, vmap or Python is left at run time, and inductor fuses what stands between the matrix products. Tracing and
compiling take seconds to a minute, so this pays for thousands of steps of the same shapes. What can't be traced or
compiled runs as it would have run without, after a warning that says why.
"""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from quickstudy.core.episode import Episode, Labelled
from quickstudy.core.errors import CompileWarning

Program = Callable[..., Sequence[Tensor]]
"""(*tensors) -> (loss, *gradients)."""
Losses = Callable[[dict[str, Tensor], Episode], Tensor]
"""(meta, episodes) -> the loss of each task, with no decision that depends on what tensors hold."""
MOST_PROGRAMS = 32


class Refused(Exception):
    """Raised while a step is traced: it can't be one program, for the reason given."""


class _Programs:
    """The programs compiled so far in this process, by what they were made for; the least recently used goes first."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._known: OrderedDict[Hashable, Program | None] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Program]) -> Program | None:
        with self._turn:
            if key not in self._known:
                try:
                    self._known[key] = make()
                except Exception as problem:  # inductor's errors have no common base
                    self._known[key] = None
                    said = str(problem).strip().splitlines() or [type(problem).__name__]
                    reason = (
                        said[0] if isinstance(problem, Refused) else f"{type(problem).__name__}: {said[0]}"
                    )
                    warnings.warn(
                        f"The step isn't compiled, and runs as it does without: {reason[:300]}", CompileWarning,
                        stacklevel=4,
                    )  # fmt: skip
                while len(self._known) > MOST_PROGRAMS:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key]


_programs = _Programs()


def gradient(
    key: Hashable, losses: Losses, meta: dict[str, Tensor], names: Sequence[str], episodes: Episode
) -> tuple[float, dict[str, Tensor]] | None:
    """The sum of `losses` and its gradient, by a compiled program; None (after a warning) where there can be none.

    Args:
        key: tells apart what `losses` computes; shapes and types are told apart here.
        meta: all that `losses` needs.
        names: which entries of `meta` are differentiated.
        episodes: stacked tasks.
    """
    tensors = [*meta.values(), *episodes.support, *episodes.query]
    shapes = tuple([(t.shape, t.dtype, t.device) for t in tensors])
    program = _programs.get(
        (key, tuple(meta), tuple(names), shapes, torch.get_num_threads()),
        lambda: _compiled(losses, list(meta), names, tensors),
    )
    if program is None:
        return None
    with torch.no_grad():
        loss, *gradients = program(*[t.detach() if t.requires_grad else t for t in tensors])
    return float(loss), dict(zip(names, gradients, strict=True))


def _compiled(losses: Losses, entries: list[str], names: Sequence[str], tensors: list[Tensor]) -> Program:
    # Imported here: inductor takes a second to load.
    import torch._inductor as inductor
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.passes.dialect.common.cse_pass import CSEPass

    def whole(*flat: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(entries, (t.detach() for t in flat), strict=False))
        leaves = values | {name: values[name].requires_grad_() for name in names}
        support, query = Labelled(*flat[len(entries) : -3]), Labelled(*flat[-3:])
        with torch.enable_grad():
            loss = losses(leaves, Episode(support, query)).sum()
            found = torch.autograd.grad(loss, [leaves[n] for n in names], allow_unused=True)
        zero = torch.zeros_like
        return loss.detach(), *(
            zero(leaves[n]) if g is None else g for n, g in zip(names, found, strict=True)
        )

    examples: list[Any] = [t.detach() for t in tensors]
    # Run once before: what is built on first use, as a network's skeleton is, mustn't become part of the trace.
    whole(*examples)
    graph: Any = make_fx(whole, decomposition_table=_unfused())(*examples)
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise Refused(
                "it draws random numbers, as dropout does, and those of a compiled step would be others."
            )
        node.meta.clear()  # values noted while tracing belong to no common fake mode, which inductor asks for
    graph.graph.eliminate_dead_code()
    graph = CSEPass()(graph).graph_module  # pyright: ignore[reportOptionalMemberAccess]
    with torch.no_grad():
        # One C++ file for everything: without it each fused loop is compiled alone, which takes ten times as long.
        program: Any = inductor.compile(graph, examples, options={"cpp_wrapper": True})
    return program


def _unfused() -> dict[Any, Callable[..., Any]]:
    """Small products in pieces that inductor can make part of the loop before or after them.

    A product added to something is a product and a sum: the fused operators copy what is added to before they multiply.
    A product over a dimension of one is a plain multiplication.
    """
    aten: Any = torch.ops.aten

    def bmm(a: Tensor, b: Tensor) -> Any:
        return a * b if a.shape[-1] == 1 else NotImplemented

    def baddbmm(into: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        product = torch.bmm(a, b)
        return (into if beta == 1 else beta * into) + (product if alpha == 1 else alpha * product)

    def baddbmm_(into: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        return into.copy_(baddbmm(into, a, b, beta=beta, alpha=alpha))

    return {aten.bmm.default: bmm, aten.baddbmm.default: baddbmm, aten.baddbmm_.default: baddbmm_}
