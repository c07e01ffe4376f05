"""A table on the institution's premises, and the content root that commits to it.

Row encoding (wire formats, section 2, leaf kind `data`): row i of the table, counted from 0 without the header, is the canonical JSON
object `{column: cell, …}` whose values are the cells' text exactly as the CSV carries them (UTF-8, no trimming, no number parsing, a
missing cell is ""). Leaf i has digest SHA-256 of those bytes, sub 0 and its own 16 random salt bytes: rows are guessable, their
leaves are not. The context is zero, because the token's id does not exist before the root is registered. The content root that
goes on chain is the tree's *record*, which binds the number of rows. An object rather than an array, so that an opened row says what
its values mean whatever becomes of the metadata.
"""

import csv
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rexis.commitments import ZERO_CONTEXT, Leaf, MerkleTree
from rexis.encoding import canonical_json, domain_tag, sha256
from rexis.errors import EncodingError

LEAF_KIND = "data"
SALT_BYTES = 16
MAX_TABLE_BYTES = 1 << 30
MAX_ROWS = 5_000_000
MAX_COLUMNS = 2_000


@dataclass(frozen=True)
class Table:
    """Column names and rows of text; every row has one cell for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column, in row order."""
        index = self.columns.index(name)
        return [row[index] for row in self.rows]


def read_table(path: Path, *, delimiter: str = ",", exclude: Sequence[str] = ()) -> Table:
    """Read a CSV file with a header line (RFC 4180, UTF-8, optional byte order mark).

    Args:
        path: the file.
        delimiter: one character.
        exclude: columns that stay out of the data set, e.g. direct identifiers.

    Raises:
        EncodingError: too large, not UTF-8, not CSV, a ragged row, a column without a name or with the same name as another,
            an excluded column that does not exist, or no rows.
    """
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise EncodingError(f"{path.name}: expected at most {MAX_TABLE_BYTES} bytes, got {size}; register it in parts")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            columns = tuple(next(reader, []))
            _check_columns(path.name, columns, delimiter, exclude)
            kept = [index for index, name in enumerate(columns) if name not in exclude]
            rows = tuple(_rows(path.name, islice(reader, MAX_ROWS + 1), len(columns), kept))
    except UnicodeDecodeError as error:
        raise EncodingError(f"{path.name}: expected text in UTF-8, got byte {error.object[error.start]:#04x}; convert the file") from error
    except csv.Error as error:
        raise EncodingError(f"{path.name}: not CSV near line {reader.line_num}: {error}") from error
    if not rows:
        raise EncodingError(f"{path.name}: expected at least one row below the header, got none")
    if len(rows) > MAX_ROWS:
        raise EncodingError(f"{path.name}: expected at most {MAX_ROWS} rows, got more; register it in parts")
    return Table(tuple(columns[index] for index in kept), rows)


def row_digest(columns: Sequence[str], row: Sequence[str]) -> bytes:
    """SHA-256 of the row's canonical JSON object, 32 bytes."""
    return sha256(canonical_json(dict(zip(columns, row, strict=True))))


def table_digests(table: Table) -> list[bytes]:
    """The digest of each row, in order."""
    return [row_digest(table.columns, row) for row in table.rows]


def new_salts(rows: int) -> bytes:
    """16 fresh random bytes for each row, one after the other."""
    return secrets.token_bytes(SALT_BYTES * rows)


def content_tree(digests: Sequence[bytes], salts: bytes) -> MerkleTree:
    """The positional tree whose record is the content root; `salts` has 16 bytes for each digest."""
    if len(salts) != SALT_BYTES * len(digests):
        raise ValueError(f"expected {SALT_BYTES} salt bytes for each of {len(digests)} rows, got {len(salts)} bytes")
    leaves = [Leaf(digest, salts[SALT_BYTES * i : SALT_BYTES * (i + 1)]) for i, digest in enumerate(digests)]
    return MerkleTree(LEAF_KIND, ZERO_CONTEXT, leaves)


def fingerprint(columns: Sequence[str], digests: Iterable[bytes], key: bytes) -> bytes:
    """32 bytes that recognise a table again for the holder of `key`, and tell nobody else anything: rows are guessable."""
    mac = hmac.new(key, domain_tag("table-fingerprint", 1), "sha256")
    mac.update(sha256(canonical_json(list(columns))))
    for digest in digests:
        mac.update(digest)
    return mac.digest()


def _check_columns(file_name: str, columns: Sequence[str], delimiter: str, exclude: Sequence[str]) -> None:
    if not 0 < len(columns) <= MAX_COLUMNS:
        raise EncodingError(f"{file_name}: expected 1 to {MAX_COLUMNS} columns in the first line, got {len(columns)}")
    if len(columns) == 1 and delimiter == "," and any(other in columns[0] for other in ";\t|"):
        raise EncodingError(f"{file_name}: the first line is one column with ';', tab or '|' in it; name the delimiter")
    unnamed = [str(index + 1) for index, name in enumerate(columns) if not name.strip()]
    if unnamed:
        raise EncodingError(f"{file_name}: expected a name for every column, got none for column {', '.join(unnamed)}")
    duplicates = sorted({name for name in columns if columns.count(name) > 1})
    if duplicates:
        raise EncodingError(f"{file_name}: expected different column names, got {', '.join(duplicates)} more than once")
    unknown = sorted(set(exclude) - set(columns))
    if unknown:
        raise EncodingError(f"{file_name}: there is no column {', '.join(unknown)} to exclude; the columns are {', '.join(columns)}")
    if set(columns) <= set(exclude):
        raise EncodingError(f"{file_name}: every column is excluded, nothing is left to register")


def _rows(file_name: str, rows: Iterable[list[str]], width: int, kept: Sequence[int]) -> Iterable[tuple[str, ...]]:
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        if len(row) != width:
            raise EncodingError(f"{file_name}: expected {width} cells in row {number}, got {len(row)}")
        yield tuple(row[index] for index in kept)
