"""Tasks whose truth is known: functions to regress and Gaussian classes, drawn for ever, no two alike.

Each family has `sampler(shots, seed)`, as data sets have, so it goes wherever they go:

    from quickstudy.domains.synthetic import Sinusoids

    meta_train(learner, Sinusoids().sampler(Shots(shots=10, queries=10, tasks=25)), steps=70_000)
"""

from quickstudy.domains.synthetic.classes import GaussianClasses
from quickstudy.domains.synthetic.functions import Functions, Harmonics, LinearSystems, Sinusoids

__all__ = ["Functions", "GaussianClasses", "Harmonics", "LinearSystems", "Sinusoids"]
