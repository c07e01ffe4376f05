"""`rexis key`, and a machine that holds nothing but a delegated key: it works for its institution, within what it may."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from tests.services.command_parties import Machine, Party, marketplace_at_work, seal_again

POLICY = "version: 1\npermission: HMB\nmodifiers: {IRB: []}\n"
ASK = ["access", "request", "1", "--purpose", "HMB", "--days", "30", "--ethics-approval"]
UNTIL = f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}"


@pytest.fixture
def urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    monkeypatch.chdir(tmp_path)
    for name in ("table", "other"):
        (tmp_path / f"{name}.csv").write_text(f"age,{name}\n" + "".join(f"{40 + i % 7},{'fm'[i % 2]}\n" for i in range(60)))
    (tmp_path / "policy.yaml").write_text(POLICY)
    with marketplace_at_work(tmp_path) as found:
        yield found


def test_a_machine_with_a_delegated_key_works_for_its_institution(urls: tuple[str, str], tmp_path: Path) -> None:
    marketplace, node = urls
    hospital, researcher = (Party(tmp_path / name, marketplace, REXIS_CHAIN_URL=node) for name in ("hospital", "researcher"))
    machine = Machine(tmp_path / "machine", REXIS_CHAIN_URL=node)
    made = machine.json("key", "create")
    log_in = ["login", "--institution", hospital.address, "--keystore", made["keystore"], "--marketplace", marketplace]
    assert f"rexis key delegate --agent {made['address']}" in machine.failure(*log_in)
    # The file of `key create` has been made and opened as it is; a dozen commands follow.
    seal_again(Path(made["keystore"]))
    assert not (machine.home / "profile.json").exists()

    delegate = ["key", "delegate", "--agent", made["address"], "--until", UNTIL, "--for"]
    hesitant = hospital.run(*delegate, "registration")
    assert (hesitant.exit_code, "DatasetRegistry.register" in hesitant.stdout) == (1, True)
    given = hospital.json(*delegate, "registration")
    assert (given["state"], given["version"], sorted(given["may"])) == ("active", 1, ["DatasetRegistry.register", "sign-in"])
    assert given["until"] == f"{UNTIL}T23:59:59+00:00"
    known = {name: value for name, value in given.items() if name != "transaction_hash"}
    assert hospital.json("key", "show", made["address"]) == known
    assert researcher.json("key", "list", "--institution", hospital.address) == [known]
    assert researcher.json("key", "list") == []

    told = machine.json(*log_in)
    assert (told["address"], told["agent"]) == (hospital.address, made["address"])
    assert machine.json("login")["address"] == hospital.address, "remembered"
    assert machine.json("dataset", "register", "table.csv", "--policy", "policy.yaml")["token_id"] == 1
    registry = Chain.connect(node, load(31337)).contract("DatasetRegistry")
    assert registry.functions.ownerOf(1).call() == hospital.address

    # Grants are another power; and no power makes more of itself.
    asked = researcher.json(*ASK)
    assert [each["id"] for each in machine.json("access", "list", "--role", "owner")] == [asked["id"]]
    assert "does not cover AccessManager.grant" in machine.failure("access", "grant", asked["id"])
    assert "takes the own key" in machine.failure(*delegate, "registration,grants")
    assert "takes the own key" in machine.failure("key", "revoke", made["address"])
    assert hospital.json(*delegate, "registration,grants")["version"] == 2
    assert machine.json("access", "grant", asked["id"])["state"] == "granted"
    assert machine.json("access", "revoke", "1", researcher.address, "--purpose", "HMB")["state"] == "revoked"
    assert "takes the own key" in machine.failure("federation", "join", "0x" + "11" * 32, "--aggregator", marketplace)

    shown = hospital.run("key", "list")
    assert made["address"] in shown.stdout
    assert hospital.json("key", "revoke", made["address"])["state"] == "revoked"
    assert hospital.json("key", "list") == []
    assert (hospital.json("key", "show", made["address"])["state"], hospital.run("key", "list").exit_code) == ("revoked", 0)
    assert "was revoked" in machine.failure("dataset", "register", "other.csv", "--policy", "policy.yaml")
    assert "was revoked" in machine.failure("login")


def test_what_is_refused_before_anything_is_signed(urls: tuple[str, str], tmp_path: Path) -> None:
    marketplace, node = urls
    hospital = Party(tmp_path / "hospital", marketplace, REXIS_CHAIN_URL=node)
    agent = Machine(tmp_path / "machine").json("key", "create")["address"]
    delegate = ["key", "delegate", "--agent", agent]
    late = f"{datetime.now(UTC) + timedelta(days=731):%Y-%m-%d}"
    assert "expected powers among sign-in, registration" in hospital.failure(*delegate, "--for", "all", "--until", UNTIL)
    assert "can not be delegated" in hospital.failure(*delegate, "--for", "KeyDelegation.delegate", "--until", UNTIL)
    for day in ("tomorrow", "2020-01-01", late):
        assert "--until: expected a day" in hospital.failure(*delegate, "--for", "grants", "--until", day)
    assert "InvalidAgent" in hospital.failure("key", "delegate", "--agent", hospital.address, "--for", "grants", "--until", UNTIL)
    assert "have it delegated" in hospital.failure("login", "--create", "--institution", agent)
    assert hospital.json("key", "list") == []
