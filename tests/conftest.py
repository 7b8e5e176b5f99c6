"""For all tests: shapes are checked, one thread, the same hypothesis examples at every run."""

import os

import jaxtyping
import pytest

# Before anything of these packages is imported: every annotated shape and type in them is checked at run time.
jaxtyping.install_import_hook(
    ["quickstudy.core", "quickstudy.learners", "quickstudy.nets"], "beartype.beartype"
)

from hypothesis import HealthCheck, settings

slow_machine = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=slow_machine)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=slow_machine)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """One thread a process: several on a busy machine are slower than one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def float64():
    """New tensors are float64 within the test."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def unchecked():
    """Annotations aren't checked within the test, as in use: what isn't of their type gets as far as it gets there."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def checked_where_it_is_cheap(request):
    """Checks are half of the time of small nets: not where figures are compared with a reference, nor in long tests."""
    if request.path.name.startswith("test_oracles") or request.node.get_closest_marker("slow"):
        request.getfixturevalue("unchecked")
