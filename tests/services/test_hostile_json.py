"""JSON that is nested without end is refused, and the process lives on.

In a process of its own, because what failed here once was the process: a dependency raises the recursion limit so far that the parser
overflows the stack.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

POST_TO_A_SERVICE = """
from services.foundation.database import migrate, open_engine
from tests.services.service_applications import client_of, settings_for

url = "sqlite:///" + {folder!r} + "/marketplace.sqlite"
migrate(open_engine(url), "services.marketplace")
with client_of(settings_for("marketplace", url)) as client:
    for body in (b"[" * 500_000, b'{{"message":' * 80_000):
        answer = client.post("/v1/sign-in", content=body, headers={{"content-type": "application/json"}})
        assert answer.status_code in (400, 422), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/livez").status_code == 200
"""

PARSE = """
import web3  # raises the limit, before or after ours
from rexis.encoding import parse_json
from rexis.errors import EncodingError

try:
    parse_json(b"[" * 500_000, max_bytes=1 << 20)
except EncodingError:
    print("refused")
"""


@pytest.mark.parametrize("code", [POST_TO_A_SERVICE, PARSE], ids=["service", "library"])
def test_endless_nesting_is_refused_and_the_process_lives_on(tmp_path: Path, code: str) -> None:
    if code is POST_TO_A_SERVICE:
        code = code.format(folder=str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
