"""JSON from elsewhere: parsed only if its nesting is harmless.

Python's parser recurses in C and relies on the interpreter's recursion limit; importing eth_account raises that limit to 100,000,
after which a hundred kilobytes of "[" end the process with a segmentation fault instead of an exception.
"""

import json
import re
from typing import Any

from rexis.errors import MalformedMessageError

MAX_DEPTH = 64

# Strings are skipped whole; one without an end reaches to the end of the text, so that no place is looked at twice.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def parse_json(raw: bytes, what: str) -> Any:
    """The JSON value of `raw`; `what` names it in messages.

    Raises:
        MalformedMessageError: no JSON in UTF-8, or nested deeper than `MAX_DEPTH`.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        depth = 0
        for token in _TOKEN.finditer(raw):
            depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
            if depth > MAX_DEPTH:
                raise MalformedMessageError(f"{what}: expected JSON of at most {MAX_DEPTH} levels, got more")
    try:
        return json.loads(raw)
    except ValueError as error:
        raise MalformedMessageError(f"{what}: expected JSON in UTF-8, got something else") from error
