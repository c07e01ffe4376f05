"""What a REST caller is told when a contract refuses: a typed problem at once, or a failed relay later, each with a sentence for people."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rexis.chain.artifacts import artifact
from rexis.chain.connection import Chain
from rexis.chain.explanations import EXPLANATIONS
from rexis.chain.signer import development_signer
from rexis.client.relayed_calls import RelayClient, SignedCall, sign_call
from rexis.errors import ChainError, ServiceError
from services.foundation.assembly import chain_jobs
from services.foundation.database import migrate, open_engine
from services.foundation.settings import RelayerSettings
from services.marketplace.settings import MarketplaceSettings
from services.trainer.background import PROJECTIONS
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY, Marketplace, body_of, running_chain, undone
from tests.services.service_applications import SERVICES, authorised, client_of, connected, serving, settings_for

ACCOUNT = development_signer(2)


def doors_of(service: str) -> Mapping[str, tuple[str, ...]]:
    return getattr(import_module(f"services.{service}.app"), "DOORS", {})


# A revocation is never refused, whoever asks for it and of whom.
NEVER_REFUSED = {("KeyDelegation", "revoke")}
# Nothing is right as terms where there were none before; where there were some, a call has to name them.
REFUSED_ARGUMENTS = {("InferenceRegistry", "setTerms"): ({"token": "0x" + 40 * "0", "bond": 0, "arbiter": "0x" + 40 * "0"}, 7)}
DOORS = [
    (service, contract, function)
    for service in SERVICES
    for contract, names in doors_of(service).items()
    for function in names
    if (contract, function) not in NEVER_REFUSED
]


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(rpc_url: str) -> Iterator[Chain]:
    with undone(rpc_url) as opened:
        yield opened


def settings_on(service: str, folder: Path, rpc_url: str, **changes: Any) -> RelayerSettings:
    settings = settings_for(service, f"sqlite:///{folder / 'service.sqlite'}", chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY, **changes)
    assert isinstance(settings, RelayerSettings)
    engine = open_engine(settings.database_url)
    migrate(engine, f"services.{service}")
    engine.dispose()
    return settings


def nothing(component: dict[str, Any]) -> Any:
    """The value of a type that stands for nothing."""
    kind = component["type"]
    if kind.endswith("]"):
        return []
    if kind == "tuple":
        return {member["name"]: nothing(member) for member in component["components"]}
    if kind.startswith("bytes"):
        return bytes(int(kind[5:] or 0))
    return {"address": "0x" + 40 * "0", "bool": False, "string": ""}.get(kind, 0)


def empty_call(chain: Chain, contract: str, function: str) -> SignedCall:
    """A call about nothing, which every contract has a reason to refuse."""
    (entry,) = [entry for entry in artifact(contract).abi if entry["type"] == "function" and entry["name"] == function]
    arguments = REFUSED_ARGUMENTS.get((contract, function)) or [nothing(component) for component in entry["inputs"]]
    return sign_call(ACCOUNT, chain.deployment, contract, function, *arguments)


def checked(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 409, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["type"], problem["status"]) == ("urn:rexis:problem:contract-reverted", 409)
    assert problem["title"] == "The contract refused the call"
    assert problem["explanation"] == EXPLANATIONS[problem["error"]]
    assert problem["detail"].startswith(f"the contract refused: {problem['explanation']} [")
    assert isinstance(problem["arguments"], dict)
    return problem


@pytest.mark.parametrize(("service", "contract", "function"), DOORS)
def test_a_refusal_through_every_door_is_a_problem(
    service: str, contract: str, function: str, chain: Chain, rpc_url: str, tmp_path: Path
) -> None:
    settings = settings_on(service, tmp_path, rpc_url)
    with client_of(settings) as client:
        signed = empty_call(chain, contract, function)
        answer = client.post("/v1/relays", json=signed.to_json(), headers=authorised(settings, ACCOUNT))
        # The contract itself, one that it asked, or "" where several declare the error; the call reached them.
        assert checked(answer)["contract"] != "Forwarder"


def test_refusals_of_the_data_set_registry_and_of_the_forwarder_are_problems(chain: Chain, rpc_url: str, tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first, second = (settings_on("marketplace", folder, rpc_url) for folder in folders)
    headers = {**authorised(first, ACCOUNT), "Idempotency-Key": "r"}
    assert isinstance(first, MarketplaceSettings)
    engine = open_engine(first.database_url)
    with client_of(first) as client, client_of(second) as another:
        marketplace = Marketplace(first, engine, client, chain)
        empty = body_of(marketplace, ACCOUNT, registration={"contentRoot": bytes(32)})
        problem = checked(client.post("/v1/datasets", json=empty, headers=headers))
        assert (problem["contract"], problem["error"]) == ("DatasetRegistry", "ZeroHash")

        body = body_of(marketplace, ACCOUNT)
        assert client.post("/v1/datasets", json=body, headers={**headers, "Idempotency-Key": "s"}).status_code == 202
        marketplace.work()
        # A marketplace that has not heard of the call: only the chain knows that it ran.
        problem = checked(another.post("/v1/datasets", json=body, headers=headers))
        assert (problem["contract"], problem["error"]) == ("Forwarder", "NonceAlreadyUsed")
        assert problem["arguments"]["from"] == ACCOUNT.address
    engine.dispose()


def test_a_refusal_after_the_promise_is_a_failed_relay(chain: Chain, rpc_url: str, tmp_path: Path) -> None:
    settings = settings_on("trainer", tmp_path, rpc_url, public_url=f"http://127.0.0.1:{free_port()}")
    engine = open_engine(settings.database_url)
    with serving(settings), connected(settings, ACCOUNT) as (connection,):
        client = RelayClient(connection)
        # Each alone would be right, so both are promised.
        first, second = (client.hand_in(sign_call(ACCOUNT, chain.deployment, "ModelRegistry", "revoke", b"\x07" * 32, 3)) for _ in range(2))
        jobs = chain_jobs(settings, engine, PROJECTIONS)
        for job in jobs * 2:
            job.run()
        assert client.wait_until_mined(first.id).state in ("mined", "confirmed", "final")
        told = connection.get(f"/v1/relays/{second.id}")
        assert told["state"] == "failed"
        assert {name: told["revert"][name] for name in ("contract", "error")} == {
            "contract": "ModelRegistry",
            "error": "ModelAlreadyRevoked",
        }
        assert told["revert"]["arguments"] == {"owner": ACCOUNT.address, "model": "0x" + "07" * 32}
        sentence = EXPLANATIONS["ModelAlreadyRevoked"]
        assert sentence in told["error"]
        # What `rexis` prints, of the call that failed and of one that is refused at once.
        with pytest.raises(ChainError, match=f"the call failed: the contract refused: {sentence}"):
            client.wait_until_mined(second.id)
        with pytest.raises(ServiceError, match=f"The contract refused the call: the contract refused: {sentence}"):
            client.hand_in(sign_call(ACCOUNT, chain.deployment, "ModelRegistry", "revoke", b"\x07" * 32, 3))
    engine.dispose()
