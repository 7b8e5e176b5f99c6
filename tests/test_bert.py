"""BERT: against a second implementation in numpy, and what must hold of any set of weights."""

import json
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from quickstudy.core.errors import ModelError
from quickstudy.encoders.tiny import tiny_bert
from quickstudy.nets.bert import Bert, BertConfig, SentenceBert, clean, pool


@pytest.fixture(scope="module")
def weights():
    return tiny_bert(seed=3)


@pytest.fixture(scope="module")
def model(weights):
    return Bert.load(*weights)


def batch(*lengths, width=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    ids = torch.randint(1, 259, (len(lengths), width), generator=generator)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    return ids * mask, mask


def numpy_bert(config, state, ids):
    """All hidden states of one unpadded text, from the formulas of the paper, in float64."""
    w = {name: tensor.double().numpy() for name, tensor in state.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    def dense(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)]
    states = [norm(x + w[e + "token_type_embeddings.weight"][0], e + "LayerNorm")]
    for k in range(config.num_hidden_layers):
        x, at = states[-1], f"encoder.layer.{k}."
        width = config.hidden_size // config.num_attention_heads
        heads = []
        for h in range(config.num_attention_heads):
            cut = slice(h * width, (h + 1) * width)
            q, key, v = (dense(x, f"{at}attention.self.{part}")[:, cut] for part in ("query", "key", "value"))
            scores = np.exp(q @ key.T / math.sqrt(width))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v)
        x = norm(
            x + dense(np.concatenate(heads, -1), at + "attention.output.dense"),
            at + "attention.output.LayerNorm",
        )
        inner = dense(x, at + "intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        states.append(norm(x + dense(inner, at + "output.dense"), at + "output.LayerNorm"))
    return states


@pytest.mark.parametrize("gradient", [False, True], ids=["fused attention", "written-out attention"])
def test_every_layer_equals_the_numpy_oracle(weights, gradient):
    config, state = weights
    generator = torch.Generator().manual_seed(1)
    # Biases and norms at other values than 0 and 1, or mistakes in them would not show.
    state = {name: t.double() + 0.3 * torch.randn(t.shape, generator=generator) for name, t in state.items()}
    model = Bert.load(config, state)
    ids, mask = batch(7)
    with torch.set_grad_enabled(gradient):
        found = model(ids, mask, layers=range(3))
    for ours, theirs in zip(found, numpy_bert(config, state, ids[0].numpy()), strict=True):
        np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-10)


def test_padding_changes_nothing(model):
    ids, mask = batch(4, 9, 6)
    wide_ids, wide_mask = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5))
    together = pool(model(wide_ids, wide_mask), wide_mask)
    for row, n in enumerate((4, 9, 6)):
        alone = pool(model(ids[row : row + 1, :n], mask[row : row + 1, :n]), mask[row : row + 1, :n])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_changes_nothing(model):
    ids, mask = batch(4, 9)
    torch.testing.assert_close(model(ids + 17 * ~mask, mask)[mask], model(ids, mask)[mask], atol=1e-6, rtol=0)


def test_a_row_of_padding_alone_stays_finite_with_its_gradient(weights):
    model = Bert.load(*weights).requires_grad_(True)
    ids, mask = batch(4, 0)
    features = pool(model(ids, mask), mask)
    assert features.isfinite().all()
    (features * torch.arange(32)).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_going_on_from_a_layer_equals_going_through(model):
    ids, mask = batch(5, 8)
    embedded, middle, last = model(ids, mask, layers=(0, 1, 2))
    assert torch.equal(model(None, mask, middle, start=1), last)
    assert torch.equal(model(None, mask, embedded, start=0), last)
    assert torch.equal(model(ids, mask), last)
    assert torch.equal(model(None, mask, middle, start=1, layers=(2, 1))[1], middle)


@pytest.mark.parametrize("layers", [(3,), (-1,), ()])
def test_layers_that_are_not_there_are_refused(model, layers):
    with pytest.raises(ModelError, match="from 0 to 2"):
        model(*batch(3), layers=layers)


def test_states_below_the_start_and_too_many_tokens_are_refused(model):
    ids, mask = batch(3)
    (middle,) = model(ids, mask, layers=(1,))
    with pytest.raises(ModelError, match="from 1 to 2"):
        model(None, mask, middle, start=1, layers=(0,))
    with pytest.raises(ModelError, match="hidden"):
        model(None, mask)
    with pytest.raises(ModelError, match="at most 256"):
        model(*batch(257))


def test_first_and_second_derivatives_are_right(weights):
    config, state = weights
    model = Bert.load(config, {name: t.double() for name, t in state.items()})
    ids, mask = batch(3, 2)
    (start,) = model(ids, mask, layers=(1,))

    def features(x):
        return pool(model(None, mask, x, start=1), mask)[:, :3]

    x = start.detach().requires_grad_(True)
    assert gradcheck(features, x, fast_mode=True)
    assert gradgradcheck(features, x, fast_mode=True)


def test_one_packed_tensor_gives_the_same_features(weights, model):
    ids, mask = batch(5, 8, 0)
    expected = pool(model(ids, mask), mask)
    network = SentenceBert.load(*weights)
    torch.testing.assert_close(network(((ids + 1) * mask).float()), expected)
    network.start = 1
    (below,) = model(ids, mask, layers=(1,))
    torch.testing.assert_close(network(below * mask.unsqueeze(-1)), expected)


def test_pooling_by_mean_and_by_first_token():
    states = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(pool(states, mask), torch.nn.functional.normalize(torch.tensor([[1.5, 0.5]])))
    torch.testing.assert_close(pool(states, mask, "cls"), torch.tensor([[1.0, 0.0]]))
    assert pool(states.bfloat16(), mask).dtype == torch.float32


def test_loading_leaves_the_weights_where_they_are(weights):
    config, state = weights
    model = Bert.load(config, state)
    assert all(model.state_dict()[name].data_ptr() == tensor.data_ptr() for name, tensor in state.items())
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_heads_prefixes_and_old_names_are_understood(weights, model):
    config, state = weights
    other = {f"bert.{n}".replace("LayerNorm.weight", "LayerNorm.gamma"): t for n, t in state.items()}
    other |= {"cls.predictions.bias": torch.zeros(3), "bert.pooler.dense.weight": torch.zeros(2, 2)}
    other["bert.embeddings.position_ids"] = torch.arange(5)
    assert clean(other).keys() == state.keys()
    ids, mask = batch(6)
    assert torch.equal(Bert.load(config, other)(ids, mask), model(ids, mask))


def test_missing_and_misshapen_weights_are_named(weights):
    config, state = weights
    name = "encoder.layer.1.output.dense.bias"
    with pytest.raises(ModelError, match=name):
        Bert.load(config, {key: value for key, value in state.items() if key != name}, "here")
    with pytest.raises(ModelError, match=r"here: .*\(7,\).*\(32,\)"):
        Bert.load(config, state | {name: torch.zeros(7)}, "here")


CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "vocab_size": 9,
    "hidden_size": 8,
    "num_hidden_layers": 1,
}
CONFIG |= {"num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta', supported is 'bert'.*all-MiniLM-L6-v2"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"hidden_size": "8"}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ],
)
def test_architectures_of_another_kind_are_refused(change, message):
    BertConfig.from_json(CONFIG)
    with pytest.raises(ModelError, match=message):
        BertConfig.from_json(json.loads(json.dumps(CONFIG | change)))


def test_a_config_without_its_sizes_is_refused():
    with pytest.raises(ModelError, match="intermediate_size"):
        BertConfig.from_json({k: v for k, v in CONFIG.items() if k != "intermediate_size"})
