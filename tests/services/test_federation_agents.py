"""Four hospitals' agents at the real aggregator on a real chain: what their rounds make is plain federated averaging."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from rexis.agent.federation.contribution import model_file_spec, read_model
from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.group_keys import GroupKeys, group_key
from rexis.agent.federation.keyed_updates import opened_model
from rexis.agent.federation.membership import fetch_model, fetch_result
from rexis.agent.federation.recomputed import RecomputedRounds
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.site_states import SiteStates
from rexis.agent.journal import Journal
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.cli.command import app
from rexis.cli.home import Profile, journal_path, write_private, write_profile
from rexis.client.aggregator import AggregatorClient, RoundRecord
from rexis.encoding import from_hex, sha256, to_hex
from rexis.errors import PolicyError, ServiceError, UnavailableError
from rexis.protocol.batch import digest_file, read_file
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.privacy import declared_epsilon, declared_micro
from rexis.secagg.statistics import ContingencyTable
from services.foundation.settings import ServiceSettings
from tests.campaign.round_accounts import PlainAverage
from tests.services.chain_process import Outage, Proxy, is_call
from tests.services.federation_stand_in import (
    AGGREGATOR,
    CHAIN_ID,
    COUNTS,
    FOUNDER,
    HOSPITALS,
    PASSPHRASE,
    Hospital,
    config_of,
    plain_update,
    rows_of,
)
from tests.services.federations_on_chain import LOOK_S, ROOT, masked_uploads, migrated, process, wait_until
from tests.services.marketplace_on_chain import running_chain
from tests.services.service_applications import connected, serving

BACKGROUND = "services.aggregator.background"
Without = Callable[[Hospital], bool]
# A round in which somebody is missing takes three of these; the others wait for nothing.
STAGE_S, LONG_STAGE_S = 20, 60


@dataclass
class Network:
    """A founder and four hospitals at one aggregator."""

    settings: ServiceSettings
    rpc_url: str
    founder: AggregatorClient
    hospitals: list[Hospital]
    homes: list[Path]
    # The aggregator's chain node and the hospitals'.
    nodes: tuple[Proxy, Proxy]

    def found(self, config: dict[str, Any], *, seed: int | None = 0) -> bytes:
        """Found a federation that is on chain when this returns."""
        plan = FederationPlan(FederationConfig.parse(config), seed=seed)
        federation = plan.found(self.founder, FOUNDER, load(CHAIN_ID)).id
        wait_until(lambda: self.founder.federation(federation).state != "founding")
        return federation

    def run(
        self, *federations: bytes, without: Without = lambda _hospital: False, until_s: float = 150.0, look_s: float = LOOK_S
    ) -> dict[bytes, bytes]:
        """Let the agents look again and again until these federations have ended; returns every global model on the way by its record."""
        deadline, models = time.monotonic() + until_s, {}
        while True:
            seen = [self.founder.federation(federation) for federation in federations]
            for each in seen:
                if each.config.training is not None and not each.config.group_pad and each.model not in models:
                    models[each.model] = self.founder.model(each.id)
            if all(each.state == "finished" for each in seen):
                return models
            assert not [each.reason for each in seen if each.state == "failed"]
            assert time.monotonic() < deadline, [(each.state, each.round) for each in seen]
            self.look(without)
            time.sleep(look_s)

    def look(self, without: Without = lambda _hospital: False) -> None:
        """Let every agent look once."""
        for hospital in self.hospitals:
            # As in the agent's loop: what does not answer is asked again.
            with suppress(UnavailableError):
                if not without(hospital):
                    hospital.poll()


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("agents")
    with running_chain(folder) as chain_url, ExitStack() as stack:
        nodes = Proxy(chain_url), Proxy(chain_url)
        for node in nodes:
            stack.callback(node.close)
        rpc_url = nodes[1].url
        chain, settings = Chain.connect(rpc_url, load(CHAIN_ID)), migrated(folder, nodes[0].url)
        with serving(settings), process(settings, BACKGROUND), connected(settings, FOUNDER, *HOSPITALS) as (founding, *lines):
            founder, homes = AggregatorClient(founding), [folder / f"home-{i}" for i in range(4)]
            hospitals = []
            for i, (signer, line) in enumerate(zip(HOSPITALS, lines, strict=True)):
                journal = homes[i] / "agents" / signer.address / "journal.sqlite"
                hospitals.append(Hospital(chain, signer, rows_of(i, COUNTS[i]), journal, line))
                hospitals[-1].register()
                hospitals[-1].grant()
            wait_until(lambda: is_introduced(founder))
            yield Network(settings, rpc_url, founder, hospitals, homes, nodes)
            for hospital in hospitals:
                hospital.stop()


def is_introduced(client: AggregatorClient) -> bool:
    try:
        return client.account() == AGGREGATOR.address
    except ServiceError:
        return False


def check_averages(network: Network, config: FederationConfig, rounds: Sequence[RoundRecord], models: Mapping[bytes, bytes]) -> None:
    """Each round's model is its base model and the weighted mean of the survivors' plain updates, and so is the weight in its metrics."""
    assert config.training is not None
    for each in rounds:
        survivors = [hospital for hospital in network.hospitals if hospital.signer.address in each.survivors]
        updates = [plain_update(hospital, config, each.base_model, models[each.base_model]) for hospital in survivors]
        weights = sum(weight for _, weight in updates)
        base = _flat(read_model(config.training, models[each.base_model], each.base_model))
        expected = base + sum(weight * delta for delta, weight in updates) / weights
        assert each.model is not None
        # A model is in single precision, the comparison is not.
        assert np.abs(_flat(read_model(config.training, models[each.model], each.model)) - expected).max() < 1e-7
        assert each.metrics is not None
        assert each.metrics["weight"] == weights


def test_rounds_of_four_agents_are_plain_federated_averaging_also_when_one_drops_out(network: Network) -> None:
    federation = network.found(config_of(network.hospitals, "training", name="averaging", rounds=3, stage_s=STAGE_S))
    for hospital in network.hospitals:
        hospital.join(federation)
    away = network.hospitals[1]

    def is_away(hospital: Hospital) -> bool:
        # It announced its keys in round 2, and is back when that round is over.
        return hospital is away and ("keys", 2) in away.stages(federation) and network.founder.federation(federation).round == 2

    models = network.run(federation, without=is_away)
    rounds = network.founder.rounds(federation)
    assert [(each.round, each.state, len(each.survivors)) for each in rounds] == [
        (1, "finished", 4),
        (2, "finished", 3),
        (3, "finished", 4),
    ]
    assert away.signer.address not in rounds[1].survivors
    config = network.founder.federation(federation).config
    check_averages(network, config, rounds, models)
    content, record = fetch_model(Registry(network.hospitals[0].chain), network.founder, federation, config)
    assert (content, record) == (models[record], rounds[-1].model)


def test_a_sparse_graph_of_neighbours_gives_the_plain_average_too(network: Network) -> None:
    config = config_of(network.hospitals, "training", name="sparse", rounds=1, stage_s=LONG_STAGE_S, degree=2)
    # Nobody trains twice on one model, so this one starts from another.
    federation = network.found(config, seed=17)
    for hospital in network.hospitals:
        hospital.join(federation)
    models = network.run(federation)
    (only,) = network.founder.rounds(federation)
    agreed = network.founder.federation(federation).config
    assert agreed.training is not None
    assert agreed.degree == 2
    base = models[only.base_model]
    updates = [plain_update(hospital, agreed, only.base_model, base) for hospital in network.hospitals]
    weights = sum(weight for _, weight in updates)
    expected = _flat(read_model(agreed.training, base, only.base_model)) + sum(weight * delta for delta, weight in updates) / weights
    assert only.model is not None
    assert np.abs(_flat(read_model(agreed.training, models[only.model], only.model)) - expected).max() < 1e-7


def test_rounds_without_masks_at_the_real_aggregator_and_nothing_of_them_stays_there(network: Network) -> None:
    config = config_of(network.hospitals, "training", name="no masks", rounds=2, stage_s=STAGE_S, protection="none")
    federation, away = network.found(config, seed=41), network.hospitals[2]
    for hospital in network.hospitals:
        with pytest.raises(PolicyError, match="rule of this site on protections"):
            hospital.join(federation)
        hospital.policy = SitePolicy(protections=frozenset({"none"}))
        hospital.restart()
        hospital.join(federation)
    models = network.run(federation, without=lambda hospital: hospital is away and network.founder.federation(federation).round == 1)
    rounds = network.founder.rounds(federation)
    assert [(each.attempt, each.state, len(each.survivors)) for each in rounds] == [(1, "finished", 3), (1, "finished", 4)]
    check_averages(network, network.founder.federation(federation).config, rounds, models)
    # Vectors without masks go with their attempt, as masked ones do.
    wait_until(lambda: masked_uploads(network.settings) == [])
    for hospital in network.hospitals:
        hospital.policy = SitePolicy()
        hospital.restart()


def test_a_round_under_the_members_key_whose_model_only_they_and_the_founder_open(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = config_of(network.hospitals, "training", name="keyed", rounds=1, stage_s=LONG_STAGE_S, protection="ee", collusion_bound=0)
    federation = network.found(config)
    agreed = network.founder.federation(federation).config
    for hospital in network.hospitals:
        hospital.policy = SitePolicy(protections=frozenset({"ee"}))
        hospital.restart()
        hospital.join(federation)
    registry, home = Registry(network.hospitals[0].chain), tmp_path / "founder"
    # As `rexis federation create` does; the agents do the rest, and the founder runs none.
    with Journal.open(home / "agents" / FOUNDER.address / "journal.sqlite", PASSPHRASE, work_factor=2) as journal:
        GroupKeys(journal, FOUNDER, registry, network.founder.connection).publish(federation, agreed)
    shown = network.run(federation)
    (only,) = network.founder.rounds(federation)
    assert only.model is not None
    plan, journal = agreed.training, network.hospitals[1].journal
    assert plan is not None
    first, last = (opened_model(journal, federation, plan, shown[each], each) for each in (only.base_model, only.model))
    record = digest_file(BytesIO(first), model_file_spec(plan), len(first)).record
    updates = [plain_update(hospital, agreed, record, first) for hospital in network.hospitals]
    expected = sum(weight * delta for delta, weight in updates) / sum(weight for _, weight in updates)
    moved = [_flat(read_file(BytesIO(content), model_file_spec(plan), len(content))) for content in (first, last)]
    assert np.abs(moved[1] - moved[0] - expected).max() < 1e-6
    kept_there = _flat(read_model(plan, shown[only.model], only.model))
    assert not _flat(read_model(plan, shown[only.base_model], only.base_model)).any()
    assert np.abs(kept_there - expected).max() > 1e-3
    assert np.linalg.norm(kept_there) == pytest.approx(np.linalg.norm(expected), rel=1e-4)
    # What the command writes for a member, and for the founder, is the members' model.
    network.hospitals[0].stop()
    for folder, who in ((network.homes[0], HOSPITALS[0]), (home, FOUNDER)):
        output = tmp_path / f"{who.address}.safetensors"
        command(network, monkeypatch, folder, who, "model", to_hex(federation), "--output", str(output))
        assert output.read_bytes() == last
    network.hospitals[0].start()
    for hospital in network.hospitals:
        hospital.policy = SitePolicy()
        hospital.restart()


def test_a_statistic_then_two_models_that_it_scales_at_the_same_time(network: Network) -> None:
    statistic = network.found(config_of(network.hospitals, "statistics", name="moments", stage_s=LONG_STAGE_S))
    for hospital in network.hospitals:
        hospital.join(statistic)
    network.run(statistic)
    config = network.founder.federation(statistic).config
    result = fetch_result(Registry(network.hospitals[0].chain), network.founder, statistic, config)
    together = np.concatenate([config.features.encode(each.table.columns, each.table.rows).inputs for each in network.hospitals])
    assert result.count == len(together)
    assert np.allclose(result.mean, together.mean(axis=0), atol=1e-3)

    scaled = {"standardisation": to_hex(statistic), "stage_s": LONG_STAGE_S, "rounds": 2}
    network_spec = {"version": 1, "family": "mlp", "config": {"inputs": 2, "hidden": [4], "outputs": 1, "activation": "relu"}}
    momentum = {"name": "fedavgm", "learning_rate": "1", "momentum": "0.5"}
    # Every part at once: control variates in the server's state, a last layer that stays at each hospital, rows that are held back.
    parts = {
        "strategy": {"name": "scaffold", "learning_rate": "1"},
        "personal": ["2."],
        # The smallest hospital keeps the ten rows that its policy asks for.
        "stopping": {"holdout": "0.1", "patience": 9, "improvement": "0"},
    }
    both = [
        network.found(config_of(network.hospitals, "training", name="line", strategy=momentum, optimizer="adam", **scaled), seed=None),
        network.found(config_of(network.hospitals, "training", name="network", model=network_spec, **parts, **scaled), seed=5),
    ]
    for federation in both:
        for hospital in network.hospitals:
            hospital.join(federation)
    network.run(*both)
    for federation in both:
        first, last = network.founder.rounds(federation)
        assert first.metrics is not None
        assert last.metrics is not None
        assert float(last.metrics["loss"]) < float(first.metrics["loss"])
        assert sha256(network.founder.server_state(federation)) == from_hex(last.metrics["state"], 32)
    # The sums are opened and the rounds are over: nothing is left to open them again.
    for hospital in network.hospitals:
        hospital.restart()
        hospital.poll()
        assert hospital.records.unended() == []
        assert SiteStates(hospital.journal).undecided(both[1]) == []


def test_the_commands_found_join_and_fetch(network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    members = [{"address": each.signer.address, "dataset": each.dataset} for each in network.hospitals]
    plan = {
        "model": {"version": 1, "family": "logistic", "config": {"inputs": 2, "outputs": 1}},
        "rounds": 1,
        "steps": 2,
        "learning_rate": 0.05,
        "clipping_norm": 1,
        "weight_cap": 40,
        "weight_band": 8,
    }
    features = FederationConfig.parse(config_of(network.hospitals, "training")).features.document()
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(features))
    spec = {
        "name": "by command",
        "kind": "training",
        "members": members[::-1],
        "purpose": "HMB",
        "features": "features.yaml",
        "stage_s": LONG_STAGE_S,
        "training": plan,
        "initial": {"seed": 3},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))

    rexis = partial(command, network, monkeypatch)
    founded = rexis(tmp_path / "founder", FOUNDER, "create", str(tmp_path / "spec.yaml"))
    again = rexis(tmp_path / "founder", FOUNDER, "create", str(tmp_path / "spec.yaml"))
    assert founded["id"] == again["id"]
    assert (founded["state"], founded["config"]["threshold"], founded["config"]["training"]["learning_rate"]) == ("inviting", 3, "0.05")
    assert founded["config"]["group_pad"]
    federation = bytes.fromhex(founded["id"][2:])
    joined = rexis(network.homes[0], HOSPITALS[0], "join", founded["id"])
    assert (joined["joined"], joined["privacy"]) == ([HOSPITALS[0].address], None)
    assert joined["protection_means"].endswith("and no model")
    assert journal_path(HOSPITALS[0].address) == network.hospitals[0].journal_file
    for hospital in network.hospitals[1:]:
        hospital.join(federation)
    network.run(federation)
    listed = rexis(network.homes[0], HOSPITALS[0], "list")
    assert founded["id"] in [each["id"] for each in listed]
    shown = rexis(network.homes[0], HOSPITALS[0], "status", founded["id"])
    assert [each["state"] for each in shown["rounds"]] == ["finished"]
    fetched = rexis(network.homes[0], HOSPITALS[0], "model", founded["id"], "--output", str(tmp_path / "model.safetensors"))
    assert fetched["model"] == shown["model"] == shown["rounds"][0]["model"]
    assert (tmp_path / "model.safetensors").stat().st_size == fetched["bytes"]


def test_a_table_and_by_command_survival_counts(network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    privacy = {"mechanism": "skellam", "noise_multiplier": "4", "delta": "0.00001", "epsilon": "2"}
    dimensions = [{"column": "sex", "levels": ["Female", "Male"]}, {"column": "age", "bands": ["50.5"]}]
    plan = {"identifier": "table", "dimensions": dimensions, "privacy": privacy}
    shared = {"stage_s": LONG_STAGE_S, "protection": "secagg+dp"}
    table = network.found(config_of(network.hospitals, "statistics", name="table", statistics=plan, **shared))
    config = config_of(network.hospitals, "statistics")
    spec = {
        "name": "survival",
        "kind": "statistics",
        "members": config["members"],
        "purpose": "HMB",
        "features": config["features"],
        "stage_s": LONG_STAGE_S,
        # These tables have no times: how old somebody is does as one.
        "statistics": {
            "identifier": "survival",
            "time": "age",
            "event": {"column": "num", "events": ["1"], "censored": ["0"]},
            "edges": [45, 60, 80],
            "privacy": {name: value if name == "mechanism" else float(value) for name, value in privacy.items()},
        },
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    rexis = partial(command, network, monkeypatch)
    survival = rexis(tmp_path / "founder", FOUNDER, "create", str(tmp_path / "spec.yaml"))
    assert (survival["privacy"]["mechanism"], survival["privacy"]["unit"], survival["privacy"]["delta"]) == ("skellam", "row", "0.00001")
    both = [table, from_hex(survival["id"], 32)]
    for federation in both:
        for hospital in network.hospitals:
            hospital.join(federation)
    network.run(*both)
    counted = fetch_result(Registry(network.hospitals[0].chain), network.founder, table, network.founder.federation(table).config)
    assert isinstance(counted, ContingencyTable)
    sexes = [sex for hospital in network.hospitals for sex in hospital.table.column("sex")]
    # Sums over the 2 + 2 cells of age; all four sites' noise has variance 64 in each.
    assert np.abs(counted.counts.sum(axis=1) - [sexes.count("Female"), sexes.count("Male"), 0, 0]).max() < 6 * 16
    shown = rexis(network.homes[0], HOSPITALS[0], "result", survival["id"], "--plot", str(tmp_path / "curves.svg"))
    (curve,) = shown["figures"]["curves"]
    assert abs(curve["at_risk"][0] - len(sexes)) < 6 * 8 * 7**0.5 + 30
    assert curve["events"] == [max(count, 0) for count in shown["result"]["groups"][0]["events"]]
    assert shown["figures"]["noise_deviation_at_most"] == pytest.approx(8.0)
    assert (tmp_path / "curves.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')


def test_an_aggregator_of_a_federation_with_the_group_pad_never_has_the_model_and_members_and_founder_do(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = config_of(network.hospitals, "training", name="padded", rounds=2, stage_s=LONG_STAGE_S, group_pad=True)
    # The aggregator and the founder are filled in by the command.
    spec = {name: value for name, value in config.items() if value is not None} | {"initial": {"seed": 23}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    rexis, home = partial(command, network, monkeypatch), tmp_path / "founder"
    founded = rexis(home, FOUNDER, "create", str(tmp_path / "spec.yaml"))
    assert rexis(home, FOUNDER, "create", str(tmp_path / "spec.yaml"))["id"] == founded["id"]
    federation = from_hex(founded["id"], 32)
    for hospital in network.hospitals:
        hospital.join(federation)
    network.run(federation)
    agreed = network.founder.federation(federation).config
    rounds = network.founder.rounds(federation)
    assert [(each.state, len(each.survivors), each.metrics) for each in rounds] == [("finished", 4, None)] * 2
    first = network.hospitals[0]
    last = RecomputedRounds(first.journal, Registry(first.chain), first.client).after(federation, agreed, 2)
    # From the first model on it is plain averaging; both of who asks have the same file, by the same command.
    content = network.founder.initial_model(federation)
    record = rounds[0].base_model
    with Journal.open(tmp_path / "again.sqlite", PASSPHRASE, work_factor=2) as again:
        keep_key(again, first.journal, federation)
        replayed = RecomputedRounds(again, Registry(first.chain), first.client)
        for number in (1, 2):
            updates = [plain_update(hospital, agreed, record, content) for hospital in network.hospitals]
            weights = sum(weight for _, weight in updates)
            assert agreed.training is not None
            expected = _flat(read_model(agreed.training, content, record)) + sum(weight * delta for delta, weight in updates) / weights
            made = replayed.after(federation, agreed, number)
            content, record = made.model, made.record
            assert np.abs(_flat(read_model(agreed.training, content, record)) - expected).max() < 1e-7
    assert (last.model, last.record) == (content, rounds[1].model)
    for folder, who in ((home, FOUNDER), (network.homes[0], HOSPITALS[0])):
        fetched = rexis(folder, who, "model", founded["id"], "--output", str(tmp_path / f"{who.address}.safetensors"))
        assert fetched["model"] == to_hex(record)
        assert (tmp_path / f"{who.address}.safetensors").read_bytes() == content
        shown = rexis(folder, who, "status", founded["id"])
        assert shown["rounds"][1]["metrics"]["weight"] == weights
    with pytest.raises(ServiceError, match="never the model"):
        network.founder.model(federation)
    # What the aggregator has of it: database and objects hold neither the key nor weights, in no form.
    key = group_key(first.journal, federation)
    assert key is not None
    stored = b"".join(path.read_bytes() for path in aggregators_files(network.settings))
    weights_of_it = _flat(read_model(agreed.training, content, record)).astype(np.float32).tobytes()
    assert to_hex(federation).encode() in stored
    assert to_hex(record).encode() in stored, "what stands on chain is there, so that this search finds what is"
    salt = made.metrics["salt"] if made.metrics is not None else ""
    for secret in (key, key.hex().encode(), content, weights_of_it[:8], weights_of_it[8:12] + weights_of_it[:4], salt.encode()):
        assert secret not in stored


def keep_key(journal: Journal, other: Journal, federation: bytes) -> None:
    """A second journal of the same institution, with the group key and nothing else."""
    (row,) = other.rows("SELECT * FROM group_key WHERE federation = ?", federation)
    place = f"group_key.key:{to_hex(federation)}"
    sealed = journal.sealer.seal(other.sealer.open_field(row["sealed_key"], place), place)
    with journal.transaction() as connection:
        values = (federation, row["recipient"], None, None, row["commitment"], sealed)
        connection.execute("INSERT INTO group_key VALUES (?, ?, ?, ?, ?, ?)", values)


def aggregators_files(settings: ServiceSettings) -> list[Path]:
    """The aggregator's database with what was not written back yet, and every object."""
    database = Path(settings.database_url.removeprefix("sqlite:///"))
    store = Path(settings.object_store_url.removeprefix("file://"))
    return [*database.parent.glob(f"{database.name}*"), *(path for path in store.rglob("*") if path.is_file())]


def test_everybody_waits_while_the_chain_is_away_and_goes_on_with_the_same_attempt(network: Network) -> None:
    """Once while commitments are on their way, and once when the survivors have to be fixed."""
    config = config_of(network.hospitals, "training", name="outages", rounds=1, stage_s=LONG_STAGE_S)
    federation = network.found(config, seed=21)
    for hospital in network.hospitals:
        hospital.join(federation)
    first = network.hospitals[0]
    # After its announcement a hospital has nothing to ask its node about, until the survivors are fixed.
    for stage, asking in (("shares", 2), ("announced", 1)):
        wait_until(lambda stage=stage: network.look() or (stage, 1) in first.stages(federation), LONG_STAGE_S)
        outages = [Outage(), Outage()]
        before = [node.before for node in network.nodes]
        for node, outage in zip(network.nodes, outages, strict=True):
            node.before = outage
        wait_until(lambda needed=outages[:asking]: network.look() or all(outage.asked > 3 for outage in needed), LONG_STAGE_S)
        assert network.founder.federation(federation).state == "running"
        for node, hooks in zip(network.nodes, before, strict=True):
            node.before = hooks
    network.run(federation)
    (record,) = network.founder.rounds(federation)
    assert (record.attempt, record.state, len(record.survivors)) == (1, "finished", 4)
    tables = {hospital.signer.address: hospital.table for hospital in network.hospitals}
    plain = PlainAverage(FederationPlan(FederationConfig.parse(config), seed=21), federation, tables)
    assert plain.round(1, record.survivors) == (record.aggregate, record.model)


def test_a_round_is_opened_by_signatures_while_the_chain_is_away_and_recorded_when_it_is_back(network: Network) -> None:
    config = config_of(network.hospitals, "training", name="cut off", rounds=2, stage_s=LONG_STAGE_S)
    federation = network.found(config, seed=22)
    for hospital in network.hospitals:
        hospital.join(federation)

    def stages() -> set[tuple[int, str]]:
        return {(item.round, item.stage) for item in network.hospitals[0].client.work() if item.federation == federation}

    def cut(parameters: list[Any]) -> bool:
        if not is_call(parameters, "fixSurvivors"):
            return False
        for node in network.nodes:
            node.before = Outage()
        raise ConnectionAbortedError

    before = [node.before for node in network.nodes]
    network.nodes[0].refuses["eth_sendRawTransaction"] = cut
    wait_until(lambda: network.look() or stages() == {(1, "recording")}, 3 * LONG_STAGE_S)
    assert all({("survivors", 1), ("unmask", 1)} <= set(each.stages(federation)) for each in network.hospitals)
    assert not network.founder.rounds(federation)
    network.nodes[0].refuses.clear()
    for node, hooks in zip(network.nodes, before, strict=True):
        node.before = hooks
    network.run(federation)
    records = network.founder.rounds(federation)
    assert [(each.round, each.attempt, len(each.survivors)) for each in records] == [(1, 1, 4), (2, 1, 4)]
    tables = {hospital.signer.address: hospital.table for hospital in network.hospitals}
    plain = PlainAverage(FederationPlan(FederationConfig.parse(config), seed=22), federation, tables)
    assert [(each.aggregate, each.model) for each in records] == [plain.round(each.round, each.survivors) for each in records]
    assert Registry(Chain.connect(network.rpc_url, load(CHAIN_ID))).federation(federation).model == records[-1].model


@contextmanager
def skewed_agent(network: Network, number: int, seconds: int) -> Iterator["subprocess.Popen[str]"]:
    """`rexis agent run` of one hospital, in a process whose clock is so much ahead."""
    home, hospital = network.homes[number], network.hospitals[number]
    write_private(home / "key.json", hospital.signer.keystore(PASSPHRASE))
    urls = {"aggregator": network.settings.public_url, "chain": network.rpc_url}
    profile = Profile(hospital.signer.address, str(home / "key.json"), CHAIN_ID, urls)
    write_private(home / "profile.json", json.dumps(asdict(profile)).encode())
    (home / "table.csv").write_text("".join(",".join(row) + "\n" for row in (hospital.table.columns, *hospital.table.rows)))
    (home / "policy.yaml").write_text("version: 1\npermission: HMB\n")
    (home / "site.toml").write_text('[[datasets]]\ntable = "table.csv"\npolicy = "policy.yaml"\n\n[federations]\n')
    command = [sys.executable, "-m", "tests.services.skewed_agent", str(seconds), str(home / "site.toml")]
    environment = {**os.environ, "REXIS_HOME": str(home), "REXIS_PASSPHRASE": PASSPHRASE}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_site_whose_clock_is_wrong_is_told_so_and_the_round_ends_without_it(network: Network) -> None:
    """Ten minutes ahead; who is behind is refused by the same check (`test_sign_in`)."""
    wrong = network.hospitals[3]
    with skewed_agent(network, 3, 600) as process:
        federation = network.found(config_of(network.hospitals, "training", name="clocks", rounds=1, stage_s=STAGE_S), seed=24)
        assert process.stdout is not None
        said = next(event for event in map(json.loads, process.stdout) if event["what"] == "waiting")
        assert "the message is dated" in said["detail"]["why"]
        for hospital in network.hospitals:
            hospital.join(federation)
        # Its process asks again and again meanwhile; most of the time goes by until its commitment is overdue.
        network.run(federation, without=lambda hospital: hospital is wrong, look_s=1.0)
        assert process.poll() is None
    assert [(each.attempt, each.state, len(each.survivors)) for each in network.founder.rounds(federation)] == [(1, "finished", 3)]
    assert wrong.stages(federation) == []


def test_a_private_federation_runs_by_the_same_commands_and_says_what_it_costs(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    privacy = {
        "mechanism": "dp-sgd",
        "noise_multiplier": "2",
        "clipping_norm": "1",
        "sampling_rate": "0.3",
        "delta": "0.00001",
        "epsilon": "3",
    }
    plan = {"rounds": 2, "batch_size": 6, "privacy": privacy, "protection": "secagg+dp", "stage_s": LONG_STAGE_S}
    cheaper = {**plan, "privacy": {**privacy, "epsilon": "0.5"}}
    unchecked = FederationPlan(FederationConfig.parse(config_of(network.hospitals, "training", name="private", **plan)), seed=31)
    unchecked.config = FederationConfig.parse(config_of(network.hospitals, "training", name="private", **cheaper))
    with pytest.raises(ServiceError, match=r"the plan allows 0\.5"):
        unchecked.found(network.founder, FOUNDER, load(CHAIN_ID))
    federation = network.found(config_of(network.hospitals, "training", name="private", **plan), seed=31)
    joined = command(network, monkeypatch, network.homes[0], HOSPITALS[0], "join", to_hex(federation))
    assert (joined["protection"], joined["protection_means"][:18]) == ("secagg+dp", "the aggregator see")
    config = network.founder.federation(federation).config
    whole = declared_epsilon(config, 2)
    assert whole is not None
    assert joined["privacy"] == {
        "mechanism": "dp-sgd",
        "unit": "row",
        "epsilon": f"{whole:.4g}",
        "delta": "0.00001",
        "standardisation_has_no_bound": False,
    }
    for hospital in network.hospitals[1:]:
        hospital.join(federation)
    models = network.run(federation)
    first, last = network.founder.rounds(federation)
    for each in (first, last):
        # Neither a count of patients nor a loss: four sites, that is all.
        assert each.metrics == {"version": 1, "weight": 4}
    assert len(models) == 3
    registry = Registry(network.hospitals[0].chain)
    assert [registry.declared_loss(federation, number) for number in (1, 2)] == [declared_micro(config, number) for number in (1, 2)]
    assert whole * 1e6 <= declared_micro(config, 2) < whole * 1e6 + 1000


def command(network: Network, monkeypatch: pytest.MonkeyPatch, home: Path, signer: LocalSigner, *arguments: str) -> Any:
    """What a command about federations prints for `signer`, whose files are in `home`."""
    monkeypatch.setenv("REXIS_HOME", str(home))
    monkeypatch.setenv("REXIS_PASSPHRASE", PASSPHRASE)
    if not (home / "profile.json").exists():
        write_private(home / "key.json", signer.keystore(PASSPHRASE))
        urls = {"aggregator": network.settings.public_url, "chain": network.rpc_url}
        write_profile(Profile(signer.address, str(home / "key.json"), CHAIN_ID, urls))
    run = CliRunner().invoke(app, ["federation", *arguments, "--json"])
    assert run.exit_code == 0, run.output
    return json.loads(run.output)


def _flat(tensors: Mapping[str, Any]) -> Any:
    """Tensors as one vector in the order of the module's parameters: weight, then bias."""
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in sorted(tensors, reverse=True)])
