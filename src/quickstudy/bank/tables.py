"""The file of a bank: its tables, and where it lies."""

import os
from pathlib import Path

from quickstudy.core.database import Database

VARIABLE = "QUICKSTUDY_BANK"
APPLICATION = 0x71736274
"""'qsbt': SQLite's application_id, by which the file is known."""
VERSION = 1

TABLES = (
    "CREATE TABLE entries (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, domain TEXT NOT NULL, "
    "name TEXT NOT NULL, description TEXT NOT NULL, source TEXT NOT NULL, licence TEXT NOT NULL, "
    "consent TEXT NOT NULL, kept TEXT NOT NULL, encoder TEXT NOT NULL, identity TEXT NOT NULL) STRICT",
    # Apart, so that a list of what there is reads no texts.
    "CREATE TABLE material (entry INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
    # x, told: float16, little-endian; y: int32; embedding: float32, made anew whenever it comes from elsewhere.
    "CREATE TABLE parts (entry INTEGER NOT NULL, place INTEGER NOT NULL, name TEXT NOT NULL, labels TEXT NOT NULL, "
    "dim INTEGER NOT NULL, shots INTEGER NOT NULL, x BLOB NOT NULL, y BLOB NOT NULL, told BLOB, "
    "embedding BLOB NOT NULL, PRIMARY KEY (entry, name)) STRICT",
)
SCHEMAS = {VERSION: TABLES}
BANK = Database(
    "bank", APPLICATION, VERSION, SCHEMAS, {}, "Nothing was kept yet: `quickstudy bank add MODEL` begins one."
)


def default_path() -> Path:
    """$QUICKSTUDY_BANK, or else bank.sqlite in the platform's folder for the user's data."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("quickstudy", appauthor=False)) / "bank.sqlite"
