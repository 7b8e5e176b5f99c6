"""Low-rank adapters: nothing at the start, the same merged and unmerged, and trainable in every way the engine has."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, vmap

from quickstudy.core.errors import CheckpointError, ModelError
from quickstudy.encoders.tiny import tiny_bert
from quickstudy.nets.bert import Bert, SentenceBert
from quickstudy.nets.lora import Adapter, LoRA, interpolated

SPEC = LoRA(rank=3, alpha=6, targets=("query", "value"), layers=(1,))


def batch(n=3, width=6, seed=0):
    ids = torch.randint(1, 259, (n, width), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(width) < torch.randint(
        2, width + 1, (n, 1), generator=torch.Generator().manual_seed(seed)
    )
    return ids, mask


def tuned(spec, state, seed=1):
    """An adapter whose B is no longer zero."""
    generator = torch.Generator().manual_seed(seed)
    return {n: t + 0.3 * torch.randn(t.shape, generator=generator) for n, t in spec.init(state, seed).items()}


@pytest.fixture(scope="module")
def model():
    return Bert.load(*tiny_bert())


def test_only_the_adapter_is_trainable_and_it_starts_as_nothing(model):
    network, adapter = SPEC.attach(model)
    assert {n for n, p in network.named_parameters() if p.requires_grad} == adapter.keys()
    assert sorted(adapter) == sorted(
        f"encoder.layer.1.attention.self.{t}.lora_{m}" for t in ("query", "value") for m in "AB"
    )
    assert [tuple(adapter[n].shape) for n in sorted(adapter)] == [(3, 32), (32, 3)] * 2
    ids, mask = batch()
    assert torch.equal(network(ids, mask), model(ids, mask))


def test_attaching_leaves_the_model_alone_and_shares_its_memory(model):
    before = {n: t.clone() for n, t in model.state_dict().items()}
    network, adapter = SPEC.attach(model)
    with torch.no_grad():
        for p in adapter.values():
            p.add_(1)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    shared = network.state_dict()
    assert all(shared[n].data_ptr() == t.data_ptr() for n, t in model.state_dict().items())


def test_the_seed_alone_decides_the_start(model):
    state = model.state_dict()
    torch.manual_seed(0)
    first = SPEC.init(state, 5)
    torch.manual_seed(1)
    assert all(torch.equal(t, SPEC.init(state, 5)[n]) for n, t in first.items())
    assert any(not torch.equal(t, SPEC.init(state, 6)[n]) for n, t in first.items())


@settings(max_examples=30)
@given(
    rank=st.integers(1, 6),
    alpha=st.floats(0.5, 32),
    targets=st.sets(st.sampled_from(["query", "key", "value", "dense"]), min_size=1),
    layers=st.sets(st.integers(0, 1), min_size=1),
    scale=st.floats(-1, 2),
)
def test_merged_equals_unmerged(rank, alpha, targets, layers, scale):
    spec = LoRA(rank=rank, alpha=alpha, targets=tuple(sorted(targets)), layers=tuple(sorted(layers)))
    config, state = tiny_bert()
    state = {n: t.double() for n, t in state.items()}
    adapter = {n: t.double() for n, t in tuned(spec, state).items()}
    network, _ = spec.attach(Bert.load(config, state), interpolated(adapter, scale))
    merged = Bert.load(config, spec.merged(state, adapter, scale))
    ids, mask = batch()
    torch.testing.assert_close(merged(ids, mask), network(ids, mask), atol=1e-9, rtol=0)


def test_scale_zero_is_the_frozen_network_and_merging_copies_only_what_changes(model):
    state = model.state_dict()
    adapter = tuned(SPEC, state)
    assert all(t is state[n] for n, t in SPEC.merged(state, adapter, 0).items())
    merged = SPEC.merged(state, adapter)
    changed = {n for n in state if merged[n] is not state[n]}
    assert changed == {f"encoder.layer.1.attention.self.{t}.weight" for t in ("query", "value")}
    with torch.no_grad():
        assert not torch.allclose(Bert.load(model.config, merged)(*batch()), model(*batch()), atol=1e-3)


def test_functional_call_with_the_adapter_alone_equals_the_module(model):
    network, _ = SPEC.attach(model)
    other = tuned(SPEC, model.state_dict())
    expected = SPEC.attach(model, other)[0](*batch())
    torch.testing.assert_close(functional_call(network, other, batch()), expected)
    assert torch.equal(network(*batch()), model(*batch())), "the module itself keeps its own adapter"


def test_vmap_over_tasks_equals_a_loop_in_value_and_gradient(model):
    network, _ = SPEC.attach(model)
    adapters = [tuned(SPEC, model.state_dict(), seed) for seed in range(4)]
    stacked = {n: torch.stack([a[n] for a in adapters]).requires_grad_(True) for n in adapters[0]}
    batches = [batch(seed=seed) for seed in range(4)]
    ids, mask = (torch.stack(part) for part in zip(*batches, strict=True))

    together = vmap(lambda a, i, m: functional_call(network, a, (i, m)))(stacked, ids, mask)
    alone = torch.stack([functional_call(network, a, b) for a, b in zip(adapters, batches, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)

    gradients = torch.autograd.grad((together.sin() * mask.unsqueeze(-1)).sum(), list(stacked.values()))
    for task, (adapter, one) in enumerate(zip(adapters, batches, strict=True)):
        own = {n: t.clone().requires_grad_(True) for n, t in adapter.items()}
        loss = (functional_call(network, own, one).sin() * one[1].unsqueeze(-1)).sum()
        for stack, single in zip(gradients, torch.autograd.grad(loss, list(own.values())), strict=True):
            torch.testing.assert_close(stack[task], single, atol=2e-4, rtol=1e-4)


def test_the_gradient_through_an_inner_step_is_right(model):
    """Second order, as MAML needs it: against finite differences, in float64."""
    config, state = tiny_bert()
    network, adapter = SPEC.attach(Bert.load(config, {n: t.double() for n, t in state.items()}))
    name = "encoder.layer.1.attention.self.query.lora_B"
    adapter = {n: t.detach().double() for n, t in tuned(SPEC, state).items()}
    ids, mask = batch()

    def after_a_step(b):
        params = adapter | {name: b}
        loss = functional_call(network, params, (ids, mask))[mask].sin().sum()
        (g,) = torch.autograd.grad(loss, b, create_graph=True)
        return functional_call(network, params | {name: b - 0.1 * g}, (ids, mask))[mask].cos().sum()

    b = adapter[name].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(after_a_step(b), b)
    direction = torch.randn(b.shape, generator=torch.Generator().manual_seed(2)).double()
    eps = 1e-5
    ends = [after_a_step((b + sign * eps * direction).detach().requires_grad_(True)) for sign in (1, -1)]
    assert ((gradient * direction).sum() - (ends[0] - ends[1]) / (2 * eps)).abs() < 1e-4 * gradient.norm()


def test_a_few_steps_pull_classes_apart(model):
    """What adapters are for: labels that the frozen features can't tell apart, learned without touching the weights."""
    network, adapter = LoRA(rank=4, layers=(0, 1)).attach(SentenceBert.load(*tiny_bert()))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 259, (40, 8), generator=generator)
    y = (ids[:, 0] < 130).long() * 2 - 1  # the class is in the first token alone

    def loss():
        # Unlike ones apart, like ones together
        features = network((ids + 1).float())
        return -((features @ features.T) * y[:, None] * y[None]).mean()

    before = loss().item()
    optimiser = torch.optim.Adam(adapter.values(), lr=0.02)
    for _ in range(30):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
    assert before > -0.1
    assert value.item() < -0.5


def test_dropout_is_on_in_training_only(model):
    spec = LoRA(rank=3, layers=(1,), dropout=0.5)
    network, _ = spec.attach(model, tuned(spec, model.state_dict()))
    assert torch.equal(network(*batch()), network(*batch()))
    network.train()
    assert not torch.equal(network(*batch()), network(*batch()))


def test_specs_and_adapters_survive_a_folder(model, tmp_path):
    adapter = Adapter(SPEC, tuned(SPEC, model.state_dict()), base="abc").half()
    adapter.save(tmp_path / "adapter")
    found = Adapter.load(tmp_path / "adapter")
    assert (found.spec, found.base, found.fingerprint) == (SPEC, "abc", adapter.fingerprint)
    assert all(
        t.dtype == torch.float16 and torch.equal(t, adapter.tensors[n]) for n, t in found.tensors.items()
    )
    assert sum(f.stat().st_size for f in (tmp_path / "adapter").iterdir()) < 10_000
    with pytest.raises(CheckpointError):
        Adapter.load(tmp_path)


def test_the_fingerprint_follows_every_value(model):
    tensors = tuned(SPEC, model.state_dict())
    name = next(iter(tensors))
    changed = tensors[name].clone()
    changed[0, 0] += 1e-6
    prints = {
        Adapter(SPEC, tensors).fingerprint,
        Adapter(SPEC, tensors | {name: changed}).fingerprint,
        Adapter(LoRA(rank=3, alpha=7, layers=(1,)), tensors).fingerprint,
        Adapter(SPEC, tensors).half().fingerprint,
    }
    assert len(prints) == 4
    assert Adapter(SPEC, dict(reversed(tensors.items()))).fingerprint in prints


def test_what_does_not_fit_is_refused(model):
    state = model.state_dict()
    adapter = tuned(SPEC, state)
    name = next(iter(adapter))
    with pytest.raises(ModelError, match='Did you mean "query"'):
        LoRA(targets=("qurey",), layers=(1,)).init(state)
    with pytest.raises(ModelError, match="no layer 5: the encoder's layers are 0 to 1"):
        LoRA(layers=(1, 5)).init(state)
    with pytest.raises(ModelError, match="rank >= 1"):
        LoRA(rank=0)
    with pytest.raises(ModelError, match="another encoder or another spec"):
        SPEC.merged(state, {n: t for n, t in adapter.items() if n != name})
    with pytest.raises(ModelError, match=r"\(5, 32\).*\(3, 32\)"):
        SPEC.merged(state, adapter | {name: torch.zeros(5, 32)})
    with pytest.raises(ModelError, match="not finite"):
        SPEC.attach(model, adapter | {name: torch.full((3, 32), torch.nan)})
