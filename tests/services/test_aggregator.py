"""Foundings and what can be asked of an aggregator's API, on a real chain, by whom it may be asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select

from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.client.relayed_calls import sign_call
from rexis.encoding import from_hex, sha256, to_hex
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.uploads import UploadManifest, content_digest_header
from services.aggregator.background import jobs
from services.aggregator.models import Federation
from services.aggregator.settings import AggregatorSettings
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent
from tests.services.federations_on_chain import AGGREGATOR, TRAINING, config_of, founding_of, initial_file, weights_in
from tests.services.marketplace_on_chain import RELAYER_KEY, running_chain, undone
from tests.services.service_applications import authorised, client_of, settings_for

HOSPITALS = sorted((LocalSigner.generate() for _ in range(4)), key=lambda signer: signer.address.lower())
FOUNDER, STRANGER = LocalSigner.generate(), LocalSigner.generate()
TWO = sorted([AGGREGATOR.address, STRANGER.address], key=str.lower)


@dataclass
class Aggregator:
    """One aggregator with its background jobs, run by hand."""

    settings: AggregatorSettings
    engine: Engine
    client: TestClient
    chain: Chain
    folder: Path

    def __post_init__(self) -> None:
        self._jobs = jobs(self.settings, self.engine)

    def work(self) -> None:
        """Passes of each job, so that what one promises is mined and seen."""
        for job in self._jobs * 3:
            job.run()

    def headers(self, account: LocalSigner) -> dict[str, str]:
        return authorised(self.settings, account)

    def upload(self, account: LocalSigner, path: Path) -> str:
        content, headers = path.read_bytes(), self.headers(account)
        upload_id: str = self.client.post("/v1/uploads", json={"total_bytes": len(content)}, headers=headers).json()["id"]
        part = {**headers, "Content-Digest": content_digest_header(sha256(content))}
        assert self.client.put(f"/v1/uploads/{upload_id}/parts/1", content=content, headers=part).is_success
        manifest = UploadManifest(len(content), (sha256(content),))
        assert self.client.post(f"/v1/uploads/{upload_id}/complete", json=manifest.to_json(), headers=headers).is_success
        return upload_id

    def body(self, config: FederationConfig, *, signer: LocalSigner = FOUNDER, founding: dict[str, Any] | None = None) -> dict[str, Any]:
        """A right request of the founder's; `founding` changes what is signed."""
        upload, model = None, b""
        if config.training is None:
            model = config.statistic_digest
        else:
            path, model = initial_file(self.folder)
            upload = self.upload(signer, path)
        arguments = founding_of(config, model, **(founding or {}))
        call = sign_call(signer, self.chain.deployment, "FederationRegistry", "create", arguments, gas=900_000)
        return {"config": config.document(), **call.to_json(), "initial_model": upload}

    def found(self, body: dict[str, Any], account: LocalSigner = FOUNDER) -> Any:
        return self.client.post("/v1/federations", json=body, headers=self.headers(account))

    def get(self, path: str, account: LocalSigner = FOUNDER, **query: Any) -> Any:
        return self.client.get(path, params=query, headers=self.headers(account))

    def counts(self) -> tuple[int, int]:
        """Rows of federations and of promised calls."""
        with transaction(self.engine, read_only=True) as session:
            found = [session.scalar(select(func.count()).select_from(table)) or 0 for table in (Federation, ChainIntent)]
        return found[0], found[1]


@pytest.fixture(scope="module")
def rpc_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_chain(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def aggregator(rpc_url: str, database_url: str, tmp_path: Path) -> Iterator[Aggregator]:
    store = f"file://{tmp_path / 'objects'}"
    settings = settings_for("aggregator", database_url, chain_rpc_url=rpc_url, relayer_key=RELAYER_KEY, object_store_url=store)
    assert isinstance(settings, AggregatorSettings)
    engine = open_engine(database_url)
    migrate(engine, "services.aggregator")
    with undone(rpc_url) as chain, client_of(settings) as client:
        made = Aggregator(settings, engine, client, chain, tmp_path)
        made.work()
        yield made
    engine.dispose()


def config(name: str = "Heart disease, four hospitals", **changes: Any) -> FederationConfig:
    return config_of(HOSPITALS, FOUNDER, name, **changes)


def test_a_federation_is_founded_on_chain_joined_and_opened(aggregator: Aggregator) -> None:
    body = aggregator.body(config())
    answer = aggregator.found(body)
    assert answer.status_code == 202, answer.text
    view = answer.json()
    assert (view["state"], view["joined"], view["round"], view["rounds_total"]) == ("founding", [], 0, 2)
    assert (view["id"], view["config"]) == (federation_id(aggregator, config()), body["config"])
    aggregator.work()
    path = f"/v1/federations/{view['id']}"
    assert aggregator.get(path).json()["state"] == "inviting"
    onchain = aggregator.chain.contract("FederationRegistry").functions.get(from_hex(view["id"])).call()
    assert onchain[10] == config().digest
    assert to_hex(onchain[11]) == view["model"]

    for member in HOSPITALS[:3] * 2:
        assert aggregator.client.put(f"{path}/membership", headers=aggregator.headers(member)).status_code == 200
    aggregator.work()
    assert aggregator.get(path).json()["state"] == "inviting"
    assert aggregator.get("/v1/work", HOSPITALS[0]).json() == {"items": []}
    joined = aggregator.client.put(f"{path}/membership", headers=aggregator.headers(HOSPITALS[3])).json()["joined"]
    assert sorted(joined) == sorted(member.address for member in HOSPITALS)
    aggregator.work()
    assert aggregator.get(path).json()["state"] == "running"
    (item,) = aggregator.get("/v1/work", HOSPITALS[0]).json()["items"]
    assert (item["round"], item["attempt"], item["stage"], item["due"], item["commitment_due"]) == (1, 1, "keys", True, True)
    assert item["manifest"]["base_model"] == view["model"]
    assert aggregator.get("/v1/work", FOUNDER).json() == aggregator.get("/v1/work", STRANGER).json() == {"items": []}


def federation_id(aggregator: Aggregator, of: FederationConfig) -> str:
    return to_hex(of.id(aggregator.chain.deployment.chain_id, aggregator.chain.deployment.contracts["FederationRegistry"].address))


def test_the_initial_model_is_what_members_get(aggregator: Aggregator) -> None:
    view = aggregator.found(aggregator.body(config())).json()
    answer = aggregator.get(f"/v1/federations/{view['id']}/model", HOSPITALS[2])
    assert answer.headers["content-digest"] == content_digest_header(sha256(answer.content))
    assert weights_in(answer.content).tolist() == [0.5, -1.0, 2.0]
    assert aggregator.get(f"/v1/federations/{view['id']}/result", HOSPITALS[2]).status_code == 404


def test_handed_in_twice_it_is_one_federation(aggregator: Aggregator) -> None:
    body = aggregator.body(config())
    first, before = aggregator.found(body), aggregator.counts()
    second = aggregator.found(body)
    again = aggregator.found(aggregator.body(config()))
    assert first.json() == second.json() == again.json()
    assert aggregator.counts() == before == (1, 1)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"threshold": 2}, "threshold: expected at least floor((n + t_c) / 2) + 1 = 3 for n = 4 and t_c = 1, got 2"),
        ({"min_survivors": 2}, "min_survivors: expected at least max(t, t_c + 2) = 3"),
        ({"collusion_bound": 3, "threshold": 4, "min_survivors": 4}, "collusion_bound: "),
        ({"aggregators": [STRANGER.address]}, "aggregators: expected this one, 0x"),
        ({"aggregators": TWO, "quorum": 1}, "quorum: expected 2 to 2, above half of 2 aggregators, got 1"),
        ({"quorum": 2}, "quorum: expected 1 to 1, above half of 1 aggregators, got 2"),
        ({"founder": STRANGER.address}, "founder: expected the account that is signed in"),
        ({"training": {**TRAINING, "clipping_norm": "1000000000"}}, "a clipping norm in"),
        ({"training": {**TRAINING, "weight_cap": 1_000_000}}, "a weight cap of at most"),
    ],
)
def test_what_a_round_could_not_keep_is_refused_with_the_rule(aggregator: Aggregator, changes: dict[str, Any], rule: str) -> None:
    answer = aggregator.found(aggregator.body(config(**changes)))
    assert answer.status_code == 422, answer.text
    assert rule in answer.json()["detail"]
    assert aggregator.counts() == (0, 0)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("founding", "named"),
    [
        ({"configHash": bytes(31) + b"1"}, "configHash"),
        ({"model": bytes(31) + b"1"}, "model"),
        ({"minSurvivors": 4}, "minSurvivors"),
        ({"participants": [hospital.address for hospital in HOSPITALS[:3]]}, "participants"),
        ({"aggregators": TWO}, "aggregators"),
    ],
)
def test_a_signed_call_that_stands_for_another_config_is_refused(aggregator: Aggregator, founding: dict[str, Any], named: str) -> None:
    answer = aggregator.found(aggregator.body(config(), founding=founding))
    assert answer.status_code == 422, answer.text
    assert f"{named}: expected" in answer.json()["detail"]
    assert aggregator.counts() == (0, 0)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_uploads_and_signatures_of_others_found_nothing(aggregator: Aggregator) -> None:
    body = aggregator.body(config())
    path, _ = initial_file(aggregator.folder)
    assert aggregator.found({**body, "initial_model": aggregator.upload(STRANGER, path)}).status_code == 404
    assert aggregator.found({**body, "initial_model": None}).status_code == 422
    assert aggregator.found(body, STRANGER).status_code == 422
    assert aggregator.found({**body, "signature": body["signature"][:-4] + "001b"}).status_code == 401
    hostile = aggregator.folder / "hostile"
    hostile.write_bytes(b"\xff" * 100)
    assert aggregator.found({**body, "initial_model": aggregator.upload(FOUNDER, hostile)}).status_code == 422
    assert aggregator.counts() == (0, 0)


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_strangers_see_nothing_and_a_founder_is_no_member(aggregator: Aggregator) -> None:
    view = aggregator.found(aggregator.body(config())).json()
    path = f"/v1/federations/{view['id']}"
    for below in ("", "/rounds", "/model", "/server-state", "/result", "/rounds/1/attempts/1/messages/keys"):
        answer = aggregator.get(path + below, STRANGER)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:rexis:problem:not-found"), below
    assert aggregator.client.put(f"{path}/membership", headers=aggregator.headers(STRANGER)).status_code == 404
    assert aggregator.client.put(f"{path}/membership", headers=aggregator.headers(FOUNDER)).status_code == 403
    assert aggregator.get("/v1/federations", STRANGER).json() == {"items": [], "next_cursor": None}
    for account in (FOUNDER, HOSPITALS[0]):
        assert [item["id"] for item in aggregator.get("/v1/federations", account).json()["items"]] == [view["id"]]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_pages_hold_each_federation_once_newest_first(aggregator: Aggregator) -> None:
    ids = [aggregator.found(aggregator.body(config(str(number), training=None))).json()["id"] for number in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = aggregator.get("/v1/federations", HOSPITALS[1], limit=2, **({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 2
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert aggregator.get("/v1/federations", STRANGER, cursor=ids[0]).status_code == 422


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
def test_the_founder_may_close_it_before_it_is_done(aggregator: Aggregator) -> None:
    view = aggregator.found(aggregator.body(config())).json()
    aggregator.work()
    close = sign_call(FOUNDER, aggregator.chain.deployment, "FederationRegistry", "close", from_hex(view["id"]))
    assert aggregator.client.post("/v1/relays", json=close.to_json(), headers=aggregator.headers(FOUNDER)).status_code == 202
    aggregator.work()
    ended = aggregator.get(f"/v1/federations/{view['id']}").json()
    assert ended["state"] == "failed"
    assert FOUNDER.address in ended["reason"]
    create = sign_call(FOUNDER, aggregator.chain.deployment, "FederationRegistry", "create", founding_of(config("second"), b"1" * 32))
    refused = aggregator.client.post("/v1/relays", json=create.to_json(), headers=aggregator.headers(FOUNDER))
    assert refused.status_code == 422, "a founding comes with its config"
