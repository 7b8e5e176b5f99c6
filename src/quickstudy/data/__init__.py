"""Small labelled data sets that come with the package, so that the first minute needs no download.

| name | rows | fields | licence |
|---|---|---|---|
| clinc150 | 6,000: 150 intents of 10 domains, 40 sentences each | text, label, domain | CC BY 3.0 |
| banking77 | 3,080: 77 intents of a bank, 25 + 15 sentences to learn from / test on | text, label, split | CC BY 4.0 |
| bc5cdr | 24 + 60 abstracts with chemicals, diseases and what causes what | PubTator | US Government work |

Attribution, changes and licence texts stand beside the files (README.md, licenses/). No sentence occurs twice, in
one or in both. Rows of a class are in random order: its first k are a smaller sample.
"""

import gzip
import json
from importlib.resources import files
from typing import Literal

from quickstudy.core.errors import DataError, did_you_mean

SAMPLES = ("clinc150", "banking77")


def sample(name: str) -> list[dict[str, str]]:
    """Rows of the bundled sample `name`, sorted by label; a new list at every call.

    Raises DataError for a name that is not in `SAMPLES`.
    """
    if name not in SAMPLES:
        raise DataError(
            f'no bundled sample is called "{name}".{did_you_mean(name, SAMPLES)} There are: {", ".join(SAMPLES)}'
        )
    packed = files("quickstudy.data").joinpath(f"{name}.jsonl.gz").read_bytes()
    return [json.loads(line) for line in gzip.decompress(packed).splitlines()]


def abstracts(part: Literal["learn", "read"]) -> str:
    """Abstracts of BC5CDR in PubTator's format: 24 to learn from, or 60 others to read."""
    packed = files("quickstudy.data").joinpath(f"bc5cdr_{part}.pubtator.gz").read_bytes()
    return gzip.decompress(packed).decode("utf-8")
