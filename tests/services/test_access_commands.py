"""`rexis access` and `rexis query` against a real marketplace: two parties, each with a home of its own."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexis.client.queries import QueryClient, QueryOutcome
from rexis.encoding import to_hex
from rexis.protocol.queries import AppliedRules, TableQuery, TableResult
from tests.services.command_parties import Party, marketplace_at_work, unsettled_environment

QUERY = "version: 1\nkind: table\ndimensions:\n  - {column: age, bands: ['43']}\n"
POLICY = "version: 1\npermission: HMB\nmodifiers: {IRB: []}\n"
DECLARED = ["--purpose", "hmb", "--days", "30", "--ethics-approval"]


@pytest.fixture
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Party, Party]]:
    """A hospital with data set 1, and a researcher."""
    monkeypatch.chdir(tmp_path)
    with marketplace_at_work(tmp_path) as (url, _):
        hospital, researcher = (Party(tmp_path / name, url) for name in ("hospital", "researcher"))
        (tmp_path / "table.csv").write_text("age,sex\n" + "".join(f"{40 + i % 7},{'fm'[i % 2]}\n" for i in range(60)))
        (tmp_path / "policy.yaml").write_text(POLICY)
        (tmp_path / "query.yaml").write_text(QUERY)
        assert hospital.json("dataset", "register", "table.csv", "--policy", "policy.yaml")["token_id"] == 1
        yield hospital, researcher


def test_access_is_asked_for_granted_used_and_ended(parties: tuple[Party, Party]) -> None:
    hospital, researcher = parties
    assert "HMB (DUO:0000006" in researcher.failure("access", "request", "1", "--purpose", "GRU", "--ethics-approval")
    assert "IRB (DUO:0000021" in researcher.failure("access", "request", "1", "--purpose", "HMB")
    assert "expected a purpose among" in researcher.failure("access", "request", "1", "--purpose", "curiosity")
    assert "there is none" in researcher.failure("query", "submit", "1", "query.yaml", "--purpose", "HMB")

    asked = researcher.json("access", "request", "1", *DECLARED, "--text", "Approved under 2026-117.")
    assert (asked["state"], asked["consumer"], asked["owner"]) == ("requested", researcher.address, hospital.address)
    assert asked["conditions"]["purpose"]["ethics_approval"] is True
    assert [each["id"] for each in hospital.json("access", "list", "--role", "owner")] == [asked["id"]]
    assert hospital.json("access", "list") == []
    assert "403" in researcher.failure("access", "decline", asked["id"])
    assert "NotOnCommittee" in researcher.failure("access", "grant", asked["id"])

    # Not without a yes; then the conditions are shown before anything is signed.
    hesitant = hospital.run("access", "grant", asked["id"])
    assert (hesitant.exit_code, "Approved under 2026-117." in hesitant.stdout) == (1, True)
    assert hospital.json("access", "list", "--role", "owner")[0]["state"] == "requested"
    granted = hospital.json("access", "grant", asked["id"])
    assert (granted["state"], granted["conditions_hash"]) == ("granted", asked["conditions_hash"])
    assert hospital.json("access", "grant", asked["id"])["state"] == "granted", "the same again signs nothing"

    [query] = researcher.json("query", "submit", "1", "query.yaml", "--purpose", "HMB")
    assert researcher.json("query", "show", query["id"])["state"] == "queued"
    parsed = TableQuery.parse(query["query"])
    result = TableResult(parsed.digest, parsed.dimensions, (25, 35), AppliedRules(10, 5))
    with hospital.connected() as connection:
        client = QueryClient(connection)
        [item] = client.work()
        assert (item.id, item.conditions and to_hex(item.conditions.digest())) == (query["id"], asked["conditions_hash"])
        assert client.put_outcome(item.id, QueryOutcome.released(result.document())).state == "released"
    assert researcher.json("query", "show", query["id"])["result"] == result.document()
    assert "35" in researcher.run("query", "show", query["id"]).stdout
    assert [each["id"] for each in researcher.json("query", "list", "--state", "released")] == [query["id"]]
    assert researcher.json("query", "list", "--role", "owner") == []

    ended = hospital.json("access", "revoke", "1", researcher.address, "--purpose", "HMB")
    assert (ended["state"], len(ended["transaction_hash"])) == ("revoked", 66)
    assert "it was revoked" in researcher.failure("query", "submit", "1", "query.yaml", "--purpose", "HMB")
    other = researcher.json("access", "request", "1", *DECLARED)
    assert hospital.json("access", "decline", other["id"], "--reason", "no more")["state"] == "declined"
    assert researcher.json("access", "list")[0]["reason"] == "no more"


def test_one_query_goes_to_several_data_sets_and_is_waited_for(parties: tuple[Party, Party]) -> None:
    hospital, researcher = parties
    Path("other.csv").write_text("age,sex\n" + "".join(f"{50 + i % 7},{'fm'[i % 2]}\n" for i in range(60)))
    assert hospital.json("dataset", "register", "other.csv", "--policy", "policy.yaml")["token_id"] == 2
    for dataset in ("1", "2"):
        hospital.json("access", "grant", researcher.json("access", "request", dataset, *DECLARED)["id"])
    done = threading.Event()

    def agent() -> None:
        with hospital.connected() as connection:
            client = QueryClient(connection)
            while not done.wait(0.1):
                with unsettled_environment():
                    for item in client.work():
                        outcome = QueryOutcome.held() if item.dataset == 1 else QueryOutcome.refused("rule budget: spent")
                        client.put_outcome(item.id, outcome)

    thread = threading.Thread(target=agent)
    thread.start()
    try:
        held, refused = researcher.json("query", "submit", "1", "2", "query.yaml", "--purpose", "HMB", "--wait", "--timeout", "30")
    finally:
        done.set()
        thread.join(10)
    assert (held["dataset"], held["state"], held["note"], held["rule"], held["result"]) == (1, "held", "held for review", None, None)
    assert (refused["dataset"], refused["state"], refused["rule"]) == (2, "refused", "rule budget: spent")
    Path("bad.yaml").write_text("version: 1\nkind: sql\n")
    assert "query" in researcher.failure("query", "submit", "1", "bad.yaml", "--purpose", "HMB")
