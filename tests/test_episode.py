"""Ragged tasks become one batch, and come back as they were."""

import pytest
import torch
from toy import one

from quickstudy.core.episode import Episode, Labelled, stack, unstack
from quickstudy.core.errors import DataError


def task(support, query, shape=(2,), regress=False):
    def part(rows):
        y = torch.randn(rows, 1) if regress else torch.arange(rows) % 2
        return Labelled.of(torch.randn(rows, *shape), y)

    return Episode(part(support), part(query))


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4), (5,)])
@pytest.mark.parametrize("regress", [True, False])
def test_what_is_stacked_comes_back(shape, regress):
    tasks = [task(3, 1, shape, regress), task(1, 4, shape, regress), task(2, 2, shape, regress)]
    batch = stack(tasks)
    assert batch.support.x.shape == (3, 3, *shape)
    assert batch.support.mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    for i, (before, after) in enumerate(zip(tasks, unstack(batch), strict=True)):
        for was, alone, cut in zip(before, one(batch, i), after, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(was, alone, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(was, cut.trimmed(), strict=True))


def test_padding_is_zero_and_masked_rows_stay_where_they_are():
    labelled = Labelled(torch.ones(3, 2), torch.tensor([1, 0, 1]), torch.tensor([True, False, True]))
    padded = labelled.padded(5)
    assert padded.x[3:].eq(0).all() and padded.mask.tolist() == [True, False, True, False, False]
    assert padded.trimmed().y.tolist() == [1, 1]


def test_errors_say_what_came():
    with pytest.raises(DataError, match=r"x \[3, 2\], y \[2\]"):
        Labelled.of(torch.ones(3, 2), torch.tensor([0, 1]))
    with pytest.raises(DataError, match="mask"):
        Labelled.of(torch.ones(3, 2), torch.tensor([0, 1, 1]), torch.ones(2, dtype=torch.bool))
    with pytest.raises(DataError, match="Can't pad 3 rows to 2"):
        Labelled.of(torch.ones(3, 2), torch.tensor([0, 1, 1])).padded(2)
    with pytest.raises(DataError, match="No episode"):
        stack([])
