"""Hostile JSON ends in an exception, never in the end of the process, and in time that grows with its length only."""

import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rexis.client.json_text import MAX_DEPTH, parse_json
from rexis.errors import MalformedMessageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=200
)


@given(VALUES)
def test_every_json_value_of_ordinary_depth_is_read(value: object) -> None:
    assert parse_json(json.dumps([value] * 3).encode(), "it") == [value] * 3


def test_the_limit_is_exact_and_brackets_in_strings_do_not_count() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, "it") is not None
    with pytest.raises(MalformedMessageError, match="at most 64 levels"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "it")
    text = "[{" * 1_000 + '\\"['
    assert parse_json(json.dumps({"text": text}).encode(), "it") == {"text": text}


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":', b'"]"[', b'"\\"]"['])
def test_deep_nesting_does_not_end_a_process_whose_recursion_limit_was_raised(opening: bytes) -> None:
    code = (
        "import sys; sys.setrecursionlimit(1_000_000)\n"
        "from rexis.client.json_text import parse_json\nfrom rexis.errors import MalformedMessageError\n"
        f"try: parse_json({opening!r} * 300_000, 'it')\nexcept MalformedMessageError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7


@pytest.mark.parametrize("content", [b"", b"nul", b"\xff\xff", b'"unfinished', b"[1,]", b'{"a" 1}', b'"\\'])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="expected JSON"):
        parse_json(content, "it")


def test_unfinished_strings_take_time_that_grows_with_the_length() -> None:
    hostile = b"[" * 100 + b'"' + b'\\"' * 2_000_000
    before = time.process_time()
    with pytest.raises(MalformedMessageError):
        parse_json(hostile, "it")
    assert time.process_time() - before < 5
