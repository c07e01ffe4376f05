"""Registration against marketplaces that fail, forget and lie: nothing is minted twice, no salt is lost, no lie is believed.

The server here is no stand-in for the marketplace (that is `tests/services`): it exists to misbehave in ways the real one must not.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

from rexis.agent.journal import Journal
from rexis.agent.registration import Registration, Target, prepare
from rexis.agent.submission import SIGNED_AGAIN, settle, submit
from rexis.agent.table import Table
from rexis.chain.calls import decode_call
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.client.connection import Connection
from rexis.client.marketplace import MarketplaceClient
from rexis.encoding import from_hex, to_hex
from rexis.errors import ChainError, ServiceError, UnavailableError, UnexpectedMessageError
from rexis.protocol.relayed_call import RelayedCall
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.typed_data import recover_signer

DEPLOYMENT = load(31337)
TARGET = Target(31337, DEPLOYMENT.contracts["Forwarder"].address, DEPLOYMENT.contracts["DatasetRegistry"].address)
TABLE = Table(("age", "sex"), tuple((str(40 + i % 9), "f" if i % 2 else "m") for i in range(25)))
METADATA = {"@type": "sc:Dataset", "name": "A table", "datePublished": "2026-11-21"}
POLICY = {"version": 1, "permission": "HMB", "diseases": [], "modifiers": {}}
PASSPHRASE = "a passphrase for tests"
TRANSACTION = "0x" + 32 * "ab"


@dataclass
class Misbehaving:
    """What the server was sent, and how it behaves."""

    posts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answer_post: Callable[[int], JSONResponse | None] = lambda _count: None
    relay: Callable[[str], JSONResponse] = lambda relay_id: JSONResponse(relay_view(relay_id, "final", 1))
    change_entry: Callable[[dict[str, Any]], dict[str, Any]] = lambda entry: entry
    hang: threading.Event = field(default_factory=threading.Event)

    def entry(self) -> dict[str, Any]:
        """The catalogue entry of the last call that was handed in."""
        call = RelayedCall.parse(self.posts[-1][1]["request"])
        given = decode_call("DatasetRegistry", call.data)[1]["registration"]
        return self.change_entry(
            {
                "token_id": 1,
                "owner": call.sender,
                "registrant": call.sender,
                "state": "active",
                "content_root": to_hex(given["contentRoot"]),
                "policy_hash": to_hex(given["policyHash"]),
                "metadata_hash": to_hex(given["metadataHash"]),
                "uri": given["uri"],
                "name": "A table",
                "transaction_hash": TRANSACTION,
                "block_number": 3,
            }
        )


def relay_view(relay_id: str, state: str, token_id: int | None, error: str | None = None) -> dict[str, Any]:
    return {"id": relay_id, "state": state, "transaction_hash": TRANSACTION, "token_id": token_id, "error": error}


def problem(status: int, **members: Any) -> JSONResponse:
    body = {"type": "about:blank", "title": "Refused", "detail": "for the test", "status": status, **members}
    return JSONResponse(body, status, media_type="application/problem+json")


def application(behaviour: Misbehaving) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/chain")
    def chain(request: Request) -> dict[str, Any]:
        contracts = {name: contract.address for name, contract in DEPLOYMENT.contracts.items()}
        return {"chain_id": 31337, "contracts": contracts, "documents_url": f"{str(request.base_url).rstrip('/')}/v1/documents"}

    @app.post("/v1/sign-in/nonce")
    def nonce() -> dict[str, str]:
        return {"nonce": "0123456789abcdef"}

    @app.post("/v1/sign-in")
    def sign_in(body: dict[str, str]) -> dict[str, str]:
        message = SignInMessage.parse(body["message"])
        assert message.recover_signer(from_hex(body["signature"], 65)) == message.address
        return {"token": message.address, "expires_at": "2999-01-01T00:00:00Z"}

    @app.post("/v1/datasets", status_code=202, response_model=None)
    def register(body: dict[str, Any], idempotency_key: str = Header()) -> JSONResponse | dict[str, Any]:
        behaviour.posts.append((idempotency_key, body))
        count = len(behaviour.posts)
        answer = behaviour.answer_post(count)
        return answer if answer is not None else relay_view(f"r{count}", "queued", None)

    @app.get("/v1/relays/{relay_id}", response_model=None)
    def relay(relay_id: str) -> JSONResponse:
        return behaviour.relay(relay_id)

    @app.get("/v1/datasets/{token_id}", response_model=None)
    def dataset(token_id: int) -> JSONResponse | dict[str, Any]:
        return behaviour.entry() if behaviour.posts and token_id == 1 else problem(404)

    return app


@pytest.fixture
def behaviour() -> Misbehaving:
    return Misbehaving()


@pytest.fixture
def url(behaviour: Misbehaving) -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(behaviour), log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    behaviour.hang.set()
    server.should_exit = True
    thread.join(20)
    listener.close()


@dataclass(frozen=True)
class Agent:
    """One institution's journal, key and connection."""

    journal: Journal
    signer: LocalSigner
    marketplace: MarketplaceClient

    def prepare(self, **changes: Any) -> Registration:
        return prepare(self.journal, TABLE, {**METADATA, **changes}, POLICY, owner=self.signer.address, target=TARGET)

    def submit(self, row: Registration) -> Registration:
        return submit(self.journal, row, self.marketplace, self.signer)

    def settle(self, row: Registration, timeout_s: float = 10) -> int:
        return settle(self.journal, row, self.marketplace, self.signer, timeout_s=timeout_s).token_id

    def register(self) -> int:
        return self.settle(self.submit(self.prepare()))

    def stages(self) -> list[str]:
        return [entry.stage for entry in self.journal.entries()]


@pytest.fixture
def agent(tmp_path: Path, url: str) -> Iterator[Agent]:
    with (
        Journal.open(tmp_path / "journal.sqlite", PASSPHRASE, work_factor=1 << 4) as journal,
        Connection(url, attempts=1) as connection,
    ):
        yield Agent(journal, LocalSigner(b"\x01" * 32), MarketplaceClient(connection))


def test_a_table_is_signed_for_once_and_registered_once(agent: Agent, behaviour: Misbehaving) -> None:
    assert agent.register() == 1
    assert agent.register() == 1
    assert len(behaviour.posts) == 1
    assert agent.stages() == ["prepared", "signed", "submitted", "registered"]
    call = RelayedCall.parse(behaviour.posts[0][1]["request"])
    signature = from_hex(behaviour.posts[0][1]["signature"], 65)
    assert recover_signer(call.typed_data(31337, TARGET.forwarder), signature) == agent.signer.address
    function, arguments = decode_call("DatasetRegistry", call.data)
    given = arguments["registration"]
    assert function == "register"
    assert given["uri"].endswith("/v1/documents/" + to_hex(given["metadataHash"]))
    assert len(agent.journal.salts(given["contentRoot"])) == 16 * 25


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_bytes(agent: Agent, behaviour: Misbehaving) -> None:
    behaviour.answer_post = lambda count: problem(500) if count == 1 else None
    with pytest.raises(ServiceError):
        agent.submit(agent.prepare())
    assert agent.register() == 1
    assert len(behaviour.posts) == 2
    assert behaviour.posts[0] == behaviour.posts[1]


def test_an_idle_chain_is_waited_for_and_gone_on_with_later(agent: Agent, behaviour: Misbehaving) -> None:
    behaviour.relay = lambda relay_id: JSONResponse(relay_view(relay_id, "queued", None))
    row = agent.submit(agent.prepare())
    with pytest.raises(UnavailableError, match="run the same command again"):
        agent.settle(row, timeout_s=0.3)
    behaviour.relay = lambda relay_id: JSONResponse(relay_view(relay_id, "mined", 1))
    assert agent.register() == 1
    assert len(behaviour.posts) == 1


def test_a_failed_relay_is_told_with_its_reason_and_signed_anew_on_the_next_run(agent: Agent, behaviour: Misbehaving) -> None:
    behaviour.relay = lambda relay_id: JSONResponse(relay_view(relay_id, "failed", None, "RequestExpired"))
    with pytest.raises(ChainError, match="RequestExpired"):
        agent.register()
    behaviour.relay = lambda relay_id: JSONResponse(relay_view(relay_id, "final", 1))
    assert agent.register() == 1
    assert agent.stages() == ["prepared", "signed", "submitted", "failed", "signed", "submitted", "registered"]
    keys = [key for key, _ in behaviour.posts]
    assert len(set(keys)) == 2
    roots = {
        decode_call("DatasetRegistry", from_hex(body["request"]["data"]))[1]["registration"]["contentRoot"] for _, body in behaviour.posts
    }
    assert len(roots) == 1


def test_a_token_that_exists_already_is_taken_over(agent: Agent, behaviour: Misbehaving) -> None:
    refusal = {"contract": "DatasetRegistry", "error": "ContentAlreadyRegistered", "arguments": {"id": 1}}
    behaviour.answer_post = lambda _count: problem(409, **refusal)
    assert agent.register() == 1
    assert agent.stages() == ["prepared", "signed", "submitted", "registered"]


def test_a_marketplace_that_was_made_anew_is_given_a_new_call_once(agent: Agent, behaviour: Misbehaving) -> None:
    assert agent.register() == 1
    lost = list(behaviour.posts)
    behaviour.posts.clear()
    behaviour.relay = lambda relay_id: JSONResponse(relay_view(relay_id, "final", 1)) if behaviour.posts else problem(404)
    states: list[str] = []
    entry = settle(agent.journal, agent.prepare(), agent.marketplace, agent.signer, timeout_s=10, on_state=states.append)
    assert (entry.token_id, states) == (1, [SIGNED_AGAIN, "indexed"])
    assert len(behaviour.posts) == 1
    assert behaviour.posts[0][0] != lost[0][0]


def test_a_marketplace_that_always_forgets_is_not_signed_for_without_end(agent: Agent, behaviour: Misbehaving) -> None:
    behaviour.relay = lambda _relay_id: problem(404)
    with pytest.raises(UnexpectedMessageError, match="just taken on"):
        agent.register()
    assert len(behaviour.posts) == 2


@pytest.mark.parametrize("member", ["metadata_hash", "policy_hash", "content_root", "registrant"])
def test_a_catalogue_that_shows_something_else_is_not_believed(agent: Agent, behaviour: Misbehaving, member: str) -> None:
    lie = "0x" + 40 * "1" if member == "registrant" else "0x" + 64 * "1"
    behaviour.change_entry = lambda entry: {**entry, member: lie}
    with pytest.raises(UnexpectedMessageError, match="the catalogue shows"):
        agent.register()
    assert "registered" not in agent.stages()


def test_other_documents_are_taken_until_something_was_signed(agent: Agent, behaviour: Misbehaving) -> None:
    first = agent.prepare()
    second = agent.prepare(name="A better title")
    assert second.content_root == first.content_root
    assert second.metadata["name"] == "A better title"
    assert agent.prepare(name="A better title", datePublished="2027-01-01") == second  # the day is not what was decided
    agent.submit(second)
    with pytest.raises(UnexpectedMessageError, match="another name"):
        agent.prepare()


def test_another_owner_or_order_of_rows_is_another_registration(agent: Agent) -> None:
    first = agent.prepare()
    turned = prepare(agent.journal, Table(TABLE.columns, TABLE.rows[::-1]), METADATA, POLICY, owner=agent.signer.address, target=TARGET)
    other = prepare(agent.journal, TABLE, METADATA, POLICY, owner=LocalSigner(b"\x02" * 32).address, target=TARGET)
    assert len({first.content_root, turned.content_root, other.content_root}) == 3


def test_two_processes_at_once_prepare_and_sign_the_same(agent: Agent, behaviour: Misbehaving) -> None:
    mine, theirs = agent.prepare(), agent.prepare()
    assert mine == theirs
    first = agent.submit(mine)
    second = agent.submit(theirs)  # still believes that nothing was signed
    assert first == second
    assert {key for key, _ in behaviour.posts} == {behaviour.posts[0][0]}


def test_kill_9_between_signing_and_the_answer_then_rerun(tmp_path: Path, url: str, behaviour: Misbehaving) -> None:
    """The whole command, killed while the marketplace works on the call; the rerun sends the same call and ends well."""
    behaviour.answer_post = lambda count: None if count > 1 else _hang(behaviour)
    table, policy = tmp_path / "table.csv", tmp_path / "policy.yaml"
    table.write_text("age,sex\n" + "".join(f"{age},{sex}\n" for age, sex in TABLE.rows))
    policy.write_text("version: 1\npermission: HMB\n")
    environment = {**os.environ, "REXIS_HOME": str(tmp_path / "home"), "REXIS_PASSPHRASE": PASSPHRASE, "REXIS_MARKETPLACE_URL": url}
    rexis = [sys.executable, "-c", "from rexis.cli.command import main; main()"]
    subprocess.run([*rexis, "login", "--create", "--json"], env=environment, check=True, timeout=60, capture_output=True)
    register = [*rexis, "dataset", "register", str(table), "--policy", str(policy), "--json"]
    process = subprocess.Popen(register, env=environment, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not behaviour.posts and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert len(behaviour.posts) == 1
    behaviour.hang.set()
    again = subprocess.run(register, env=environment, check=True, timeout=60, capture_output=True)
    result = json.loads(again.stdout)
    assert result["token_id"] == 1
    assert len(behaviour.posts) == 2
    assert behaviour.posts[0] == behaviour.posts[1]
    entries = subprocess.run([*rexis, "agent", "journal", "--json"], env=environment, check=True, timeout=60, capture_output=True)
    assert [entry["stage"] for entry in json.loads(entries.stdout)] == ["prepared", "signed", "submitted", "registered"]
    third = subprocess.run(register, env=environment, check=True, timeout=60, capture_output=True)
    assert json.loads(third.stdout) == {**result, "new": False}
    assert len(behaviour.posts) == 2


def _hang(behaviour: Misbehaving) -> JSONResponse:
    behaviour.hang.wait(60)
    return problem(503)
