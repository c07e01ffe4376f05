"""The command as people and programs meet it: exit codes, one message, JSON, speed, and files that only their owner reads."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rexis.agent.journal import Journal
from rexis.cli import home
from rexis.cli.command import app
from rexis.commitments import ZERO_CONTEXT, Leaf, MerkleTree
from rexis.encoding import canonical_json, sha256, to_hex
from rexis.errors import ConfigurationError

ROWS = [{"age": str(40 + i % 7), "sex": "f" if i % 2 else "m"} for i in range(30)]
UNUSED = "http://127.0.0.1:9"  # the discard port: nothing of ours listens there
COMMANDS = [
    ["login"],
    ["doctor"],
    ["dataset"],
    ["dataset", "register"],
    ["dataset", "list"],
    ["dataset", "show"],
    ["agent"],
    ["agent", "journal"],
    ["agent", "run"],
    ["agent", "held"],
    ["agent", "decide"],
    ["access"],
    ["access", "request"],
    ["access", "grant"],
    ["access", "decline"],
    ["access", "revoke"],
    ["access", "list"],
    ["query"],
    ["query", "submit"],
    ["query", "show"],
    ["query", "list"],
    ["ee"],
    ["ee", "keygen"],
    ["ee", "show"],
    ["ee", "encrypt"],
    ["ee", "encrypt-model"],
    ["ee", "decrypt"],
    ["model"],
    ["model", "publish"],
    ["model", "list"],
    ["model", "show"],
    ["model", "share"],
    ["model", "revoke"],
    ["infer"],
    ["federation"],
    ["federation", "create"],
    ["federation", "join"],
    ["federation", "list"],
    ["federation", "status"],
    ["federation", "model"],
    ["federation", "result"],
    ["verify"],
    ["verify", "inclusion"],
    ["verify", "receipt"],
    ["verify", "fetch"],
]


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REXIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("REXIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REXIS_PASSPHRASE", "a passphrase for tests")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def rexis(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def failure(result: Result) -> str:
    """The message of a command that failed under --json."""
    assert result.exit_code == 1, result.output
    return str(json.loads(result.stdout)["error"]["message"])


def table_file(folder: Path, header: str = "age,sex", *, rows: list[str] | None = None) -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([header, *(rows or [f"{row['age']},{row['sex']}" for row in ROWS])]) + "\n")
    return path


def policy_file(folder: Path, text: str = "version: 1\npermission: HMB\n") -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    return path


def proof_file(folder: Path, **changes: Any) -> tuple[Path, bytes]:
    leaves = [Leaf(sha256(canonical_json(row)), bytes([i]) * 16) for i, row in enumerate(ROWS)]
    tree = MerkleTree("data", ZERO_CONTEXT, leaves)
    proof: dict[str, Any] = {
        "version": 1,
        "kind": "data",
        "context": to_hex(ZERO_CONTEXT),
        "index": 7,
        "n_leaves": len(ROWS),
        "row": ROWS[7],
        "salt": to_hex(leaves[7].salt),
        "sub": 0,
        "proof": [to_hex(sibling) for sibling in tree.proof(7)],
        "record": to_hex(tree.record),
    }
    path = folder / "proof.json"
    path.write_text(json.dumps({name: value for name, value in {**proof, **changes}.items() if value is not None}))
    return path, tree.record


def test_help_is_fast_because_it_imports_little() -> None:
    """Judged by what is imported, and loosely by processor time, since wall clocks depend on the neighbours."""
    code = (
        "import sys, resource; sys.argv = ['rexis', '--help']\n"
        "from rexis.cli.command import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, *sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    used, *modules = done.stderr.split()
    assert "dataset" in done.stdout
    assert float(used) < 1.0
    heavy = {
        "httpx",
        "web3",
        "eth_account",
        "cryptography",
        "numpy",
        "torch",
        "yaml",
        "rexis.client",
        "rexis.agent",
        "rexis.chain",
        "sqlite3",
    }
    assert heavy.isdisjoint(modules)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = rexis(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    if len(command) == 2 or command in (["login"], ["doctor"]):
        assert "--json" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["dataset", "register"],
        ["dataset", "register", "missing.csv", "--policy", "missing.yaml"],
        ["dataset", "show", "0"],
        ["dataset", "list", "--limit", "many"],
        ["verify", "inclusion"],
        ["unknown"],
        ["doctor", "--unknown"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = rexis(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_a_failure_is_one_message_without_a_trace() -> None:
    result = rexis("dataset", "list", "--marketplace", "http://example.org")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: example.org: tokens must not travel without TLS to another machine; use https://\n"


def test_nothing_but_the_json_is_on_standard_output_while_a_service_is_away() -> None:
    code = "import sys; sys.argv = ['rexis', 'dataset', 'list', '--json']; from rexis.cli.command import main; main()"
    environment = {**os.environ, "REXIS_MARKETPLACE_URL": UNUSED}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "UnavailableError"
    assert done.stderr == ""


def test_a_defect_is_one_line_and_its_trace_on_request() -> None:
    code = "import sys; from rexis.cli.output import report_defect; sys.excepthook = report_defect; raise ValueError('age 63')"
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert quiet.returncode == 1
    assert "age 63" not in quiet.stderr
    assert quiet.stderr.count("\n") == 1
    loud = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "REXIS_DEBUG": "1"}
    )
    assert "ValueError: age 63" in loud.stderr


def test_dry_run_shows_what_would_leave_and_needs_no_platform(tmp_path: Path) -> None:
    arguments = ["dataset", "register", str(table_file(tmp_path)), "--policy", str(policy_file(tmp_path)), "--dry-run"]
    shown = rexis(*arguments)
    assert shown.exit_code == 0
    assert "30 rows, 2 columns, k = 2" in shown.stderr
    assert "has 2 row(s), fewer than 10" in shown.stderr
    assert "DUO:0000006" in shown.stderr
    value = json.loads(rexis(*arguments, "--json").stdout)
    assert set(value["would_leave"]) == {"metadata", "policy"}
    assert value["would_leave"]["metadata"]["name"] == "table"
    assert not (tmp_path / "home").exists()


def test_direct_identifiers_are_refused_with_the_rule_and_the_way_out(tmp_path: Path) -> None:
    rows = [f"{row['age']},p{i}@example.org,{row['sex']}" for i, row in enumerate(ROWS)]
    table = table_file(tmp_path, "age,contact,sex", rows=rows)
    arguments = ["dataset", "register", str(table), "--policy", str(policy_file(tmp_path)), "--json", "--dry-run"]
    message = failure(rexis(*arguments))
    assert "contact: direct identifier: e-mail addresses (F)" in message
    assert "--exclude 'contact'" in message
    value = json.loads(rexis(*arguments, "--exclude", "contact").stdout)
    assert "contact" not in json.dumps(value)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("version: 1\npermission: EVERYTHING\n", "expected one of NRES"),
        ("version: 1\npermission: HMB\nmodifiers: {TS: [2030-12-31]}\n", "dates in quotes"),
        ("permission: [unclosed\n", "not YAML"),
        ("just text\n", "a policy has the fields"),
        ("x: " + "y" * 300_000, "at most 262144 bytes"),
    ],
)
def test_a_policy_that_is_none_is_refused_with_its_file(tmp_path: Path, policy: str, reason: str) -> None:
    message = failure(rexis("dataset", "register", str(table_file(tmp_path)), "--policy", str(policy_file(tmp_path, policy)), "--json"))
    assert message.startswith("policy.yaml: ")
    assert reason in message


def test_nobody_registers_before_login(tmp_path: Path) -> None:
    message = failure(rexis("dataset", "register", str(table_file(tmp_path)), "--policy", str(policy_file(tmp_path)), "--json"))
    assert "run `rexis login`" in message


def test_the_journal_is_shown_without_passphrase_and_without_salts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REXIS_PASSPHRASE")
    address, salts = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", bytes(range(100, 148))
    home.write_profile(home.Profile(address, str(tmp_path / "key.json"), 31337))
    assert "no journal" in failure(rexis("agent", "journal", "--json"))
    with Journal.open(home.journal_path(address), "another passphrase", work_factor=16) as journal, journal.transaction() as connection:
        journal.keep_salts(connection, b"\x11" * 32, "data", salts, 3)
        journal.append(connection, "dataset 0x1111", "prepared", owner=address)
    entries = json.loads(rexis("agent", "journal", "--json").stdout)
    assert [(entry["subject"], entry["stage"], entry["detail"]) for entry in entries] == [
        ("dataset 0x1111", "prepared", {"owner": address})
    ]
    shown = rexis("agent", "journal", "--subject", "dataset 0x1111").stdout
    assert "prepared" in shown
    assert salts[:16].hex() not in shown


def test_an_inclusion_proof_passes_against_the_published_record(tmp_path: Path) -> None:
    path, record = proof_file(tmp_path)
    result = json.loads(rexis("verify", "inclusion", str(path), "--record", to_hex(record), "--json").stdout)
    assert (result["result"], result["index"], result["record_checked"]) == ("PASS", 7, True)
    shown = rexis("verify", "inclusion", str(path)).stdout
    assert "PASS" in shown
    assert "NOT CHECKED" in shown
    by_digest, _ = proof_file(tmp_path, row=None, digest=to_hex(sha256(canonical_json(ROWS[7]))))
    assert rexis("verify", "inclusion", str(by_digest)).exit_code == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"row": {**ROWS[7], "age": "41"}}, "does not lead"),
        ({"index": 8}, "does not lead"),
        ({"index": 30}, "index below 30"),
        ({"n_leaves": 31}, "does not lead"),
        ({"salt": "0x" + 32 * "0"}, "does not lead"),
        ({"sub": 1}, "does not lead"),
        ({"kind": "label"}, "only with kind data"),
        ({"kind": ["data"]}, "a kind among"),
        ({"kind": "rows"}, "a kind among"),
        ({"version": 2}, "version 1"),
        ({"index": "7"}, "whole numbers"),
        ({"index": -1}, "whole numbers"),
        ({"index": True}, "whole numbers"),
        ({"proof": "0x"}, "a list as proof"),
        ({"proof": ["0x00"]}, "32 bytes"),
        ({"context": "0x" + 64 * "1"}, "does not lead"),
        ({"extra": 1}, "expected an object with"),
        ({"row": {"age": 46, "sex": "f"}}, "object of strings"),
        ({"record": "0x" + 64 * "a"}, "does not lead"),
    ],
)
def test_a_changed_proof_fails_with_the_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path, _ = proof_file(tmp_path, **changes)
    assert reason in failure(rexis("verify", "inclusion", str(path), "--json"))


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b" " * (2 << 20)])
def test_a_file_that_is_no_proof_fails(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "proof.json"
    path.write_bytes(content)
    assert failure(rexis("verify", "inclusion", str(path), "--json")).startswith("proof.json: ")


def test_a_proof_for_another_record_fails(tmp_path: Path) -> None:
    path, _ = proof_file(tmp_path)
    assert "the proof is for record" in failure(rexis("verify", "inclusion", str(path), "--record", "0x" + 64 * "0", "--json"))


def test_doctor_names_each_failure_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in home.STANDARD_PORTS:
        monkeypatch.setenv(f"REXIS_{service.upper()}_URL", UNUSED)
    result = rexis("doctor", "--json")
    assert result.exit_code == 1
    checks = {check["name"]: check for check in json.loads(result.stdout)}
    assert {name: check["level"] for name, check in checks.items()} == {
        "python": "ok",
        "packages": "ok",
        "REXIS_HOME": "ok",
        "identity": "warning",
        "marketplace": "failed",
        "trainer": "failed",
        "aggregator": "failed",
        "verifier": "failed",
        "chain node": "warning",
    }
    assert all(check["advice"] for check in checks.values() if check["level"] != "ok")
    assert "make up" in rexis("doctor").stdout


def test_doctor_finds_files_that_others_may_read_and_a_key_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in home.STANDARD_PORTS:
        monkeypatch.setenv(f"REXIS_{service.upper()}_URL", UNUSED)
    home.write_private(tmp_path / "home" / "keys" / "a.json", b"{}")
    (tmp_path / "home" / "keys" / "a.json").chmod(0o644)
    home.write_profile(home.Profile("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", str(tmp_path / "gone.json"), 31337))
    checks = {check["name"]: check for check in json.loads(rexis("doctor", "--json").stdout)}
    assert checks["REXIS_HOME"]["level"] == "failed"
    assert "chmod" in checks["REXIS_HOME"]["advice"]
    assert "is gone" in checks["identity"]["found"]


def test_private_files_are_private_from_the_first_byte(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home.write_private(tmp_path / "home" / "keys" / "a.json", b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "home" / "keys" / "a.json").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "home" / "keys").iterdir()] == ["a.json"]


def test_where_services_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = home.Profile("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "key.json", 31337, {"marketplace": "https://remembered"})
    assert home.service_url("marketplace", None, None) == "http://127.0.0.1:8001"
    (tmp_path / ".rexis").mkdir()
    urls = {name: f"http://127.0.0.1:{port + 1000}" for name, port in home.STANDARD_PORTS.items()}
    (tmp_path / ".rexis" / "platform.json").write_text(json.dumps({"urls": {**urls, "chain": "https://chain.example.org"}}))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert home.service_url("marketplace", None, None) == "http://127.0.0.1:9001"
    assert home.service_url("chain", None, None) == "http://127.0.0.1:8545"
    assert home.service_url("marketplace", None, profile) == "https://remembered"
    monkeypatch.setenv("REXIS_MARKETPLACE_URL", "https://environment")
    assert home.service_url("marketplace", None, profile) == "https://environment"
    assert home.service_url("marketplace", "https://option", profile) == "https://option"


@pytest.mark.parametrize("record", ['{"urls": {"marketplace": "https://evil.example"}}', '{"urls": 1}', "[]", "{"])
def test_a_platform_record_that_leads_elsewhere_is_not_followed(tmp_path: Path, record: str) -> None:
    (tmp_path / ".rexis").mkdir()
    (tmp_path / ".rexis" / "platform.json").write_text(record)
    with pytest.raises(ConfigurationError):
        home.service_url("marketplace", None, None)


def test_a_short_passphrase_and_a_missing_one_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REXIS_PASSPHRASE", "short")
    with pytest.raises(ConfigurationError, match="at least 10"):
        home.passphrase(confirm=True)
    monkeypatch.delenv("REXIS_PASSPHRASE")
    (tmp_path / "secret").write_text("from a file\n")
    monkeypatch.setenv("REXIS_PASSPHRASE_FILE", str(tmp_path / "secret"))
    assert home.passphrase(confirm=True) == "from a file"


def test_a_site_without_rules_for_federations_joins_none(tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text('[[datasets]]\ntable = "table.csv"\npolicy = "policy.yaml"\n[queries]\nsensitive = ["age"]\n')
    told = failure(rexis("federation", "join", "0x" + 64 * "1", "--site", str(site), "--json"))
    assert told == "site.toml has no section [federations]: this site takes part in none"
