"""Data sets of classes and of tasks: splits that share nothing, samplers without state."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quickstudy.core.dataset import MetaDataset, Shots, TaskDataset
from quickstudy.core.episode import Labelled
from quickstudy.core.errors import DataError
from quickstudy.domains.vision import mirrored, rotated


def dataset(classes=8, each=6, groups=()):
    """Row r of class c is [c, r]: every row can be told from its features."""
    x = torch.tensor([[float(c), float(r)] for r in range(each) for c in range(classes)])
    names = torch.tensor([[float(c), -1.0] for c in range(classes)])
    return MetaDataset(x, x[:, 0].long(), tuple(f"class {c}" for c in range(classes)), groups, names)


def real(part, task):
    return part.x[task][part.mask[task]], part.y[task][part.mask[task]]


@settings(max_examples=40)
@given(
    ways=st.one_of(st.integers(2, 5), st.sampled_from([(1, 4), (2, 5)])),
    shots=st.one_of(st.integers(1, 3), st.just((1, 3))),
    queries=st.integers(1, 3),
    step=st.integers(0, 10**6),
)
def test_a_task_is_some_classes_with_distinct_items(ways, shots, queries, step):
    data = dataset()
    shape = Shots(ways=ways, shots=shots, queries=queries, tasks=3)
    batch = data.sampler(shape, seed=5)(step)
    lowest, highest = (ways, ways) if isinstance(ways, int) else ways
    assert shape.most_ways == highest
    for task in range(3):
        (xs, ys), (xq, yq) = (real(part, task) for part in batch)
        number = int(ys.max()) + 1
        assert lowest <= number <= highest
        counts = torch.bincount(ys)
        least, most = (shots, shots) if isinstance(shots, int) else shots
        assert counts.unique().numel() == 1 and least <= int(counts[0]) <= most
        assert torch.bincount(yq).tolist() == [queries] * number
        # One label, one class; and no item twice, in support or query.
        classes = {(int(y), int(x[0])) for x, y in zip(torch.cat([xs, xq]), torch.cat([ys, yq]), strict=True)}
        assert len(classes) == number == len({c for _, c in classes})
        items = [tuple(x.tolist()) for x in torch.cat([xs, xq])]
        assert len(items) == len(set(items))


def test_a_batch_is_a_pure_function_of_seed_and_step():
    data, shots = dataset(), Shots(ways=3, shots=2, queries=2, tasks=4)
    sample = data.sampler(shots, seed=1)
    in_order = [sample(step) for step in range(3)]
    again = data.sampler(shots, seed=1)
    backwards = [again(step) for step in (2, 1, 0)][::-1]
    for a, b in zip(in_order, backwards, strict=True):
        assert all(torch.equal(s, t) for p, q in zip(a, b, strict=True) for s, t in zip(p, q, strict=True))
    assert not torch.equal(in_order[0].support.x, in_order[1].support.x)
    assert not torch.equal(in_order[0].support.x, data.sampler(shots, seed=2)(0).support.x)


def test_all_classes_and_items_are_drawn():
    data = dataset(classes=6, each=4)
    batch = data.sampler(Shots(ways=2, shots=1, queries=1, tasks=200))(0)
    assert len({tuple(x) for x in batch.support.x.reshape(-1, 2).tolist()}) == 24


def test_tasks_can_be_drawn_from_few_groups():
    groups = tuple("aaaabbbb")
    batch = dataset(groups=groups).sampler(Shots(ways=3, shots=1, queries=1, tasks=40, groups=1))(0)
    seen = {frozenset(groups[int(c)] for c in batch.support.x[task, :, 0]) for task in range(40)}
    assert seen == {frozenset("a"), frozenset("b")}


def test_a_group_that_is_too_small_gives_tasks_of_fewer_ways_and_odds_say_which_group_comes():
    groups = tuple("aaaaabbb")
    sample = dataset(groups=groups).sampler(
        Shots(ways=5, shots=1, queries=1, tasks=60, groups=1), odds={"a": 1.0, "b": 3.0}
    )
    batch = sample(0)
    ways = [len(real(batch.support, task)[0]) for task in range(60)]
    assert set(ways) == {3, 5}
    assert 33 <= ways.count(3) <= 57


def test_names_stand_in_the_support_as_one_more_example_where_asked():
    shots = Shots(ways=3, shots=2, queries=1, tasks=30, name_share=0.5)
    batch = dataset().sampler(shots)(0)
    shares = []
    for task in range(30):
        x, y = real(batch.support, task)
        named = x[:, 1] == -1
        shares.append(float(named.sum()) / 3)
        of = {int(label): int(row[0]) for row, label in zip(x[~named], y[~named], strict=True)}
        assert all(of[int(label)] == int(row[0]) for row, label in zip(x[named], y[named], strict=True))
    assert 0.3 < sum(shares) / 30 < 0.7


@settings(max_examples=20)
@given(seed=st.integers(0, 100), classes=st.integers(3, 12))
def test_a_split_shares_no_class_and_loses_none(seed, classes):
    data = dataset(classes=classes)
    split = data.split(seed=seed)
    parts = [split.train, split.valid, split.test]
    assert sorted(name for part in parts for name in part.classes) == sorted(data.classes)
    assert sum(len(part.x) for part in parts) == len(data.x)
    for part in parts:
        for x, y in zip(part.x, part.y, strict=True):
            assert part.classes[int(y)] == f"class {int(x[0])}"
            assert int(part.names[int(y), 0]) == int(x[0])


def test_joined_data_sets_keep_their_classes_apart():
    both = dataset(2, 3, groups=("a", "a")).join(dataset(3, 2, groups=("b",) * 3))
    assert both.classes == ("class 0", "class 1", "class 0", "class 1", "class 2")
    assert both.groups == ("a", "a", "b", "b", "b")
    assert [len(rows) for rows in both.rows()] == [3, 3, 2, 2, 2]
    assert all(
        int(both.x[r, 0]) == c for c, rows in zip((0, 1, 0, 1, 2), both.rows(), strict=True) for r in rows
    )


def test_errors_say_what_came_and_what_to_do():
    x = torch.zeros(3, 2)
    with pytest.raises(DataError, match="x has 3 rows but y has 2"):
        MetaDataset(x, torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(DataError, match="class numbers 0 to 2, but there are 2"):
        MetaDataset(x, torch.tensor([0, 1, 2]), ("a", "b"))
    with pytest.raises(DataError, match="2 classes but 1 groups"):
        MetaDataset(x, torch.tensor([0, 1, 1]), ("a", "b"), groups=("g",))
    with pytest.raises(DataError, match=r"Tasks of 9 classes.*8 of 8 classes have that many.*Ask for fewer"):
        dataset().sampler(Shots(ways=9, shots=1, queries=1))
    with pytest.raises(DataError, match="0 of 8 classes"):
        dataset().sampler(Shots(ways=2, shots=5, queries=5))
    with pytest.raises(DataError, match="this data set has none"):
        MetaDataset(x, torch.tensor([0, 1, 1]), ("a", "b")).sampler(Shots(2, 1, 0, name_share=0.5))


# -- Tasks as they are


def users(sizes=(5, 9, 3, 12)):
    return TaskDataset(
        tuple(
            Labelled.of(torch.full((n, 1), float(i)) + torch.arange(n)[:, None] / 100, torch.randn(n, 1))
            for i, n in enumerate(sizes)
        )
    )


def test_a_split_keeps_together_what_was_made_of_one_class():
    plain = MetaDataset(
        torch.rand(40, 1, 6, 6), torch.arange(20).repeat_interleave(2), tuple(map(str, range(20)))
    )
    for data in (
        mirrored(rotated(plain)), rotated(mirrored(plain)), rotated(plain).join(mirrored(plain.only([1, 4, 2]))),
        rotated(plain).only(range(10, 60)),
    ):  # fmt: skip
        parts = list(vars(data.split(seed=3)).values())
        bases = [{name.split("/")[0] for name in part.classes} for part in parts]
        assert sum(len(part.classes) for part in parts) == len(data.classes) and all(bases)
        if len(data.kin) == len(plain.classes) * 8:
            assert not (bases[0] & bases[1] or bases[0] & bases[2] or bases[1] & bases[2])
        kin = [set(part.kin) for part in parts]
        assert not (kin[0] & kin[1] or kin[0] & kin[2] or kin[1] & kin[2])
    # Joined data sets have nothing to do with one another.
    assert len(set(plain.join(plain).kin)) == 20 and len(set(plain.only([3]).join(plain).kin)) == 20
    again = replace(plain, kin=())
    assert len(set(plain.join(again).kin)) == 40  # another data set, whatever it holds
    turned = rotated(plain).join(mirrored(plain))
    assert len(set(turned.kin)) == 20
    numbered = [replace(plain, kin=tuple(range(10)) * 2) for _ in range(2)]
    assert len(set(numbered[0].join(numbered[1]).kin)) == 20
    with pytest.raises(DataError, match="20 classes but 2 numbers of kin"):
        replace(plain, kin=(1, 2))


def test_a_user_s_rows_are_split_in_two_and_never_mixed_with_another_s():
    batch = users().sampler(Shots(shots=(2, 4), queries=3, tasks=50), seed=1)(7)
    for task in range(50):
        (xs, _), (xq, _) = (real(part, task) for part in batch)
        assert len(xs) in (2, 3, 4) and 1 <= len(xq) <= 3
        rows = torch.cat([xs, xq]).flatten().tolist()
        assert len(set(rows)) == len(rows) and len({int(r) for r in rows}) == 1
        assert int(rows[0]) != 2  # three rows can't give four to learn from and one to judge by
    again = users().sampler(Shots(shots=(2, 4), queries=3, tasks=50), seed=1)(7)
    assert torch.equal(again.support.x, batch.support.x)


def test_users_are_split_whole():
    parts = users((4,) * 10).split(seed=3)
    firsts = [int(task.x[0, 0]) for part in parts for task in part.tasks]
    assert [len(part.tasks) for part in parts] == [6, 2, 2] and sorted(firsts) == list(range(10))
    with pytest.raises(DataError, match="No task has more than 12 rows"):
        users().sampler(Shots(shots=12))


@pytest.mark.parametrize("kind", [lambda t: t.numpy(), lambda t: t.tolist(), lambda t: t.int().numpy()])
def test_arrays_and_lists_become_tensors(unchecked, kind):
    x, y = torch.arange(24.0).reshape(12, 2), torch.arange(12) % 3
    shots = Shots(ways=2, shots=2, queries=2, tasks=2)
    found = MetaDataset(kind(x), kind(y), ["a", "b", "c"], names=kind(x[:3]))  # pyright: ignore[reportArgumentType]
    assert found.classes == ("a", "b", "c") and found.y.dtype == torch.int64
    expected = MetaDataset(x, y, ("a", "b", "c")).sampler(shots)(0)
    for part, true in zip(found.sampler(shots)(0), expected, strict=True):
        assert torch.equal(part.x.float(), true.x) and torch.equal(part.y, true.y)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            torch.ones(4, 2),
            torch.tensor([0.0, 1.0, 0.0, 1.0]),
            r"y is float32 of shape \[4\]; expected class.*TaskDataset",
        ),
        (torch.ones(4, 2), torch.zeros(4, 1, dtype=torch.long), r"shape \[4, 1\].*y\.long\(\)\.flatten\(\)"),
        (["a", "b"], torch.tensor([0, 1]), "x is a list that isn't made of numbers.*Encode"),
        ([[1.0], [1.0, 2.0]], torch.tensor([0, 1]), "x is a list.*rows of one shape"),
        (3.0, torch.tensor([0, 1]), "x is a single number; expected a row"),
    ],
)
def test_what_is_no_meta_data_set(unchecked, x, y, message):
    with pytest.raises(DataError, match=message):
        MetaDataset(x, y, ("a", "b"))
