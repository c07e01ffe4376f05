"""The row encoding and the content root: the law of the docstring, and files that must be refused."""

import hashlib
from pathlib import Path

import pytest

from rexis.agent.table import Table, content_tree, fingerprint, new_salts, read_table, row_digest, table_digests
from rexis.commitments import ZERO_CONTEXT, verify_inclusion
from rexis.errors import EncodingError, InclusionProofError


def write(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


def test_a_row_is_the_canonical_object_of_its_cells() -> None:
    # Written out by hand: keys sorted, cells as text, no white space.
    expected = hashlib.sha256('{"age":"63","chol":"","ville":"Zürich"}'.encode()).digest()
    assert row_digest(("ville", "age", "chol"), ("Zürich", "63", "")) == expected


def test_cells_are_kept_as_they_are_written(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, b'\xef\xbb\xbfage,note\r\n063," a ""b"", c"\r\n1.0,\r\n'))
    assert table == Table(("age", "note"), (("063", ' a "b", c'), ("1.0", "")))


def test_every_row_verifies_at_its_own_index_only(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, b"a,b\n1,x\n2,y\n3,z\n1,x\n2,y\n"))
    digests = table_digests(table)
    tree = content_tree(digests, new_salts(len(digests)))
    for index, leaf in enumerate(tree.items):
        verify_inclusion("data", ZERO_CONTEXT, index, leaf, 5, tree.proof(index), tree.record)
        with pytest.raises(InclusionProofError):
            verify_inclusion("data", ZERO_CONTEXT, (index + 1) % 5, leaf, 5, tree.proof(index), tree.record)
    # Rows 0 and 3 are equal; their leaves are not.
    assert digests[0] == digests[3]
    assert tree.items[0] != tree.items[3]


def test_the_same_table_has_another_root_with_other_salts(tmp_path: Path) -> None:
    digests = table_digests(read_table(write(tmp_path, b"a\n1\n2\n")))
    salts = new_salts(2)
    assert content_tree(digests, salts).record == content_tree(digests, salts).record
    assert content_tree(digests, salts).record != content_tree(digests, new_salts(2)).record


def test_salts_must_fit_the_rows() -> None:
    with pytest.raises(ValueError, match="16 salt bytes"):
        content_tree([bytes(32)] * 2, bytes(31))


def test_the_fingerprint_recognises_the_table_and_needs_the_key(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, b"a,b\n1,2\n"))
    digests, key = table_digests(table), bytes(32)
    mark = fingerprint(table.columns, digests, key)
    assert mark == fingerprint(table.columns, digests, key)
    assert mark != fingerprint(table.columns, digests, b"\x01" * 32)
    assert mark != fingerprint(("b", "a"), digests, key)
    assert mark != fingerprint(table.columns, [*digests, digests[0]], key)


def test_excluded_columns_do_not_reach_the_table(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, b"name,age,sex\nAnna,1,f\n"), exclude=["name"])
    assert table == Table(("age", "sex"), (("1", "f"),))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "1 to 2000 columns"),
        (b"a,b\n", "at least one row"),
        (b"a,b\n1,2\n3\n", "2 cells in row 2, got 1"),
        (b"a,b\n1,2,3\n", "got 3"),
        (b"a,a\n1,2\n", "a more than once"),
        (b"a, \n1,2\n", "no.* for column 2|none for column 2"),
        (b"a;b;c\n1;2;3\n", "name the delimiter"),
        (b"a,b\n1,\xff\n", "UTF-8, got byte 0xff"),
        (b'a,b\n1,"2\n', "not CSV"),
        (b'a,b\n1,"2"x\n', "not CSV"),
        (b"a\n" + b"x" * 200_000 + b"\n", "not CSV"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        read_table(write(tmp_path, content))


def test_an_unknown_or_total_exclusion_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n1,2\n")
    with pytest.raises(EncodingError, match="no column c to exclude"):
        read_table(path, exclude=["c"])
    with pytest.raises(EncodingError, match="nothing is left"):
        read_table(path, exclude=["a", "b"])


def test_another_delimiter(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, b"a;b\n1;2,5\n"), delimiter=";").rows == (("1", "2,5"),)
