"""Data sets, requests and grants on a real chain: what the tests of access and those of queries have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from httpx2 import Response

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import from_hex, sha256
from services.foundation.database import migrate, open_engine
from services.foundation.settings import LOCAL_CHAIN_ID
from services.marketplace.settings import MarketplaceSettings
from tests.services.marketplace_on_chain import RELAYER_KEY, Marketplace, body_of
from tests.services.service_applications import authorised, client_of, settings_for

# With ether of their own, so that they also act without the marketplace.
HOSPITAL, BUYER, RESEARCHER, STRANGER, MEMBER = (development_signer(number) for number in range(2, 7))
HMB, DS, GRU = 6, 7, 42
DAY = 86_400
PURPOSE = {"use": "HMB", "ethics_approval": True, "commercial": False}


@contextmanager
def marketplace_with_a_data_set(chain: Chain, rpc_url: str, database_url: str) -> Iterator[Marketplace]:
    """A marketplace whose data set 1 is HOSPITAL's, for HMB with ethics approval and no commercial use."""
    engine = open_engine(database_url)
    migrate(engine, "services.marketplace")
    settings = settings_for("marketplace", database_url, chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY)
    assert isinstance(settings, MarketplaceSettings)
    with client_of(settings) as client:
        found = Marketplace(settings, engine, client, chain)
        register(found, HOSPITAL)
        yield found
    engine.dispose()


def register(marketplace: Marketplace, owner: LocalSigner, **changes: Any) -> int:
    """Register a data set and return its token id."""
    answer = send(marketplace, owner, "POST", "/v1/datasets", body_of(marketplace, owner, **changes))
    assert answer.status_code == 202, answer.text
    marketplace.work()
    return int(marketplace.get(f"/v1/relays/{answer.json()['id']}", owner)["token_id"])


def send(marketplace: Marketplace, account: LocalSigner, method: str, path: str, body: Any = None, **headers: str) -> Response:
    content = {} if body is None else {"json": body}
    return marketplace.client.request(method, path, headers={**authorised(marketplace.settings, account), **headers}, **content)


def ask(marketplace: Marketplace, *, consumer: LocalSigner = RESEARCHER, **changes: Any) -> dict[str, Any]:
    """A right request for data set 1, with what `changes` say."""
    body = {"dataset": 1, "purpose": PURPOSE, "days": 90, "conditions": "Approved under 2026-117.", **changes}
    answer = send(marketplace, consumer, "POST", "/v1/access-requests", body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def terms(marketplace: Marketplace, request: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the owner signs to grant `request`, as the marketplace shows it."""
    given = {
        "dataset": request["dataset"],
        "consumer": request["consumer"],
        "purpose": request["purpose"],
        "until": chain_time(marketplace) + 90 * DAY,
        "policyVersion": request["policy_version"],
        "grantEpoch": request["grant_epoch"],
        "conditionsHash": from_hex(request["conditions_hash"], 32),
    }
    return given | changes


def act(marketplace: Marketplace, sender: LocalSigner, contract: str, function: str, *arguments: Any) -> None:
    """A call as `send_call` makes it; the background jobs have run afterwards."""
    send_call(marketplace, sender, contract, function, *arguments)
    marketplace.work()


def send_call(marketplace: Marketplace, sender: LocalSigner, contract: str, function: str, *arguments: Any) -> None:
    """A call that does not go through the marketplace; the sender pays itself."""
    eth = marketplace.chain.web3.eth
    account = marketplace.chain.web3.to_checksum_address(sender.address)
    fields = {
        "chainId": LOCAL_CHAIN_ID,
        "to": marketplace.chain.deployment.contracts[contract].address,
        "value": 0,
        "data": encode_call(contract, function, *arguments),
        "gas": 1_000_000,
        "gasPrice": eth.gas_price,
        "nonce": eth.get_transaction_count(account),
    }
    sent = eth.send_raw_transaction(sender.sign_transaction(fields))
    assert eth.wait_for_transaction_receipt(sent, poll_latency=0.01)["status"] == 1


def grant(marketplace: Marketplace, request: dict[str, Any], *, owner: LocalSigner = HOSPITAL, **changes: Any) -> None:
    act(marketplace, owner, "AccessManager", "grant", terms(marketplace, request, **changes))


def access(marketplace: Marketplace, *, consumer: LocalSigner = RESEARCHER, **changes: Any) -> dict[str, Any]:
    """A request that was granted."""
    request = ask(marketplace, consumer=consumer)
    grant(marketplace, request, **changes)
    return request


def free_job(provider: LocalSigner, arbiter: LocalSigner, algorithm: bytes, until: int) -> dict[str, Any]:
    """Terms of a compute-to-data job on data set 1 that costs nothing, to be accepted until this Unix time."""
    return {
        "dataset": 1,
        "purpose": HMB,
        "provider": provider.address,
        "arbiter": arbiter.address,
        "algorithm": algorithm,
        "document": sha256(b"document"),
        "token": "0x" + 40 * "0",
        "price": 0,
        "acceptUntil": until,
        "runSeconds": 3600,
        "reviewSeconds": 3600,
    }


def chain_time(marketplace: Marketplace) -> int:
    return int(marketplace.chain.web3.eth.get_block("latest")["timestamp"])


def rpc(marketplace: Marketplace, method: str, *parameters: Any) -> Any:
    node: Any = marketplace.chain.web3.provider
    answer = node.make_request(method, list(parameters))
    assert "error" not in answer, answer
    return answer["result"]


def problem_of(answer: Response) -> tuple[int, str]:
    """Status and kind of a problem."""
    return answer.status_code, answer.json()["type"].removeprefix("urn:rexis:problem:")
