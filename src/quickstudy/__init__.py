"""quickstudy: learn from many small tasks, so that a new task needs only a few examples.

    from quickstudy import FewShotTextClassifier

    model = FewShotTextClassifier().fit(["where is my card?", "undo the transfer", ...], ["arrival", "undo", ...])
    model.predict(["the card has not come"])

Every public name is loaded when it is first asked for: `import quickstudy` alone imports no torch.
Editors and type checkers read them from `__init__.pyi`.
"""

__version__ = "0.1.0"

_HOME = {  # module -> the public names that live there
    "quickstudy.bank.store": ("TaskBank",),
    "quickstudy.core.adapted": ("Adapted", "Explanation", "Influence", "Prediction"),
    "quickstudy.core.dataset": ("MetaDataset", "Shots", "Split", "TaskDataset"),
    "quickstudy.core.encoder": ("Encoder",),
    "quickstudy.core.engine": ("adapt", "evaluate", "meta_gradient", "meta_train", "predict"),
    "quickstudy.core.episode": ("Episode", "Labelled"),
    "quickstudy.core.errors": (
        "CheckpointError", "CompileWarning", "DataError", "DivergedError", "MissingExtra", "ModelError", "NotFitted",
        "QuickstudyError",
    ),
    "quickstudy.core.learner": ("MetaLearner", "NetLearner"),
    "quickstudy.core.objective": ("Classify", "Objective", "Rank", "Regress"),
    "quickstudy.core.policy": ("DiscreteActions", "GaussianActions", "PolicyGradient"),
    "quickstudy.core.estimate": ("Estimate", "paired", "paired_share"),
    "quickstudy.core.report": ("Report",),
    "quickstudy.core.task": ("Task",),
    "quickstudy.domains": ("Domain",),
    "quickstudy.encoders.text": ("load_encoder",),
    "quickstudy.domains.kg.graph.store": ("GraphStore",),
    "quickstudy.domains.kg.schema": ("Schema",),
    "quickstudy.domains.kg.use": ("GraphModel",),
    "quickstudy.domains.text.prior": ("Prior", "load_prior"),
    "quickstudy.domains.text.read": ("Examples", "read_datasets", "read_examples", "read_texts"),
    "quickstudy.domains.text.use": ("FewShotTextClassifier",),
    "quickstudy.learners": (
        "ANIL", "BOIL", "CAVIA", "GE2E", "IMAML", "LEO", "MAML", "BayesianRidge", "Centroid", "DeepKernel",
        "FineTune", "Gaussian", "LearnedMomentum", "LearnedOptimiser", "Logistic", "LogisticHead", "MAMLPlusPlus",
        "Matching", "MatchingFCE", "MetaCurvature", "MetaLSTM", "MetaOptNet", "MetaR", "MetaSGD", "NeuralProcess",
        "Pool", "Pretrained", "ProtoMAML", "Prototypical", "RelationNet", "Reptile", "Ridge", "Siamese",
        "SimpleShot", "SoftKMeans",
    ),
    "quickstudy.nets": ("MLP", "Candidates", "Conv4", "GaussianPolicy", "stored_norms"),
}  # fmt: skip
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE)]


def __getattr__(name: str) -> object:
    """Load a public name from its home (PEP 562) and keep it."""
    from importlib import import_module

    if name in _MODULE:
        value = globals()[name] = getattr(import_module(_MODULE[name]), name)
        return value
    from quickstudy.core.errors import did_you_mean

    hint = "" if name.startswith("_") else did_you_mean(name, _MODULE)
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}.{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
