"""The shipped prior is what tools/make_prior.py makes of the bundled sample: every tensor, every fact.

The adapter is taken as it is: tuning it again takes minutes (`python tools/make_prior.py --check --tune`).
"""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quickstudy.domains.text.prior import Prior

TOOL = Path(__file__).resolve().parent.parent / "tools" / "make_prior.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_prior", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shipped(tool):
    return Prior.load(tool.SHIPPED)


@pytest.mark.slow
def test_the_shipped_prior_is_what_its_adapter_and_the_sample_give(tool):
    assert tool.check(tune=False) == []


def test_it_equals_itself(tool, shipped):
    apart = tool.compare(shipped, shipped)
    assert set(shipped.parts()[0]) | set(shipped.parts()[1]) == set(apart)
    assert set(apart.values()) == {0.0}


@pytest.mark.parametrize(
    "name", ["center", "basis", "mean", "between", "slope", "shift", "noise", "calibration", "own"]
)
def test_a_tensor_that_was_touched_is_found(tool, shipped, name):
    touched = replace(shipped, meta={**shipped.meta, name: shipped.meta[name] * 1.02 + 0.01})
    assert tool.compare(shipped, touched)[f"meta.{name}"] > tool.ESTIMATED


def test_other_changes_are_found_too(tool, shipped):
    def found(**changes):
        apart = tool.compare(shipped, replace(shipped, **changes))
        return {name for name, far in apart.items() if not far <= tool.ESTIMATED}

    assert found(blend=2.0) == {"blend"}
    assert found(settings={}) == {"settings"}
    assert found(sources=()) == {"sources"}
    assert found(familiar_from=0.5) == {"familiar_from"}
    assert found(learner=replace(shipped.learner, within_strength=1.0)) == {"learner"}
    assert found(landmarks=shipped.landmarks[:-1]) == {"landmarks"}
    assert found(landmarks=shipped.landmarks * float("nan")) == {"landmarks"}
    assert "adapter" in found(adapter=None)


def test_axes_may_turn_round_and_nothing_else(tool, shipped):
    signs = torch.where(torch.arange(384) % 3 == 0, -1.0, 1.0)
    meta = shipped.meta
    turned = {
        **meta,
        "basis": meta["basis"] * signs,
        "mean": meta["mean"] * signs,
        "shift": meta["shift"] * signs,
    }
    assert max(tool.compare(shipped, replace(shipped, meta=turned)).values()) < 1e-6
    assert tool.compare(shipped, replace(shipped, meta={**turned, "mean": meta["mean"]}))["meta.mean"] > 0.1
