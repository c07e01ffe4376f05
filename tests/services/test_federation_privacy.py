"""Private federations: the ledger comes before the noise, a round has one vector whatever dies, and the chain says what it cost."""

import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.membership import fetch_model
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import PrivacyCap, SitePolicy
from rexis.agent.privacy_ledger import PrivacyLedger
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.dp.accountant import GaussianEvent, epsilon
from rexis.encoding import to_hex
from rexis.errors import PolicyError, PrivacyBudgetExceededError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.payloads import decode_update
from rexis.secagg.privacy import declared_micro, round_event, site_variance
from tests.services.federation_stand_in import CHAIN_ID, Hospital, StandIn, config_of, play

DELTA = 1e-5
DP_SGD = {
    "mechanism": "dp-sgd",
    "noise_multiplier": "8",
    "clipping_norm": "1",
    "sampling_rate": "0.3",
    "delta": "0.00001",
    "epsilon": "30",
}
SKELLAM = {"mechanism": "skellam", "noise_multiplier": "4", "delta": "0.00001", "epsilon": "30"}
PLAN: dict[str, Any] = {"rounds": 2, "steps": 3, "batch_size": 6, "privacy": DP_SGD, "protection": "secagg+dp"}


def found(stand_in: StandIn, hospitals: list[Hospital], *, seed: int = 0, **changes: Any) -> bytes:
    return stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "training", **{**PLAN, **changes})), seed=seed))


def joined(stand_in: StandIn, hospitals: list[Hospital], **changes: Any) -> bytes:
    federation = found(stand_in, hospitals, **changes)
    for hospital in hospitals:
        hospital.join(federation)
    return federation


def limit(hospital: Hospital, cap: PrivacyCap) -> None:
    hospital.policy = SitePolicy(privacy=cap)
    hospital.restart()


def root_of(hospital: Hospital) -> bytes:
    root: bytes = hospital.journal.rows("SELECT content_root FROM registration")[0]["content_root"]
    return root


def debited(hospital: Hospital) -> list[str]:
    return [row["release"] for row in hospital.journal.rows("SELECT release FROM privacy_release ORDER BY rowid")]


def reasons(hospital: Hospital, federation: bytes) -> list[str]:
    entries = hospital.journal.entries(subject=f"federation {to_hex(federation)}", limit=1000)
    return [str(entry.detail["reason"]) for entry in entries if entry.stage in ("refused", "dropped")]


def test_two_private_rounds_are_debited_declared_and_tell_no_count(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals)
    kept, models = stand_in.kept[federation], []
    for _ in range(2):
        stand_in.open_round(federation)
        play(stand_in, federation, hospitals)
        models.append(kept.model)
    assert len(set(models)) == 2
    mean = decode_update(kept.config, kept.sums[-1])
    assert (mean.weight, mean.loss) == (4, None)
    assert 0 < np.abs(mean.delta).max() < 1
    name = f"federation {to_hex(federation)} round"
    for hospital in hospitals:
        assert debited(hospital) == [f"{name} 1", f"{name} 2"]
    spent = PrivacyLedger(hospitals[0].journal).spent(root_of(hospitals[0]), DELTA)
    assert spent == pytest.approx(epsilon([GaussianEvent(8.0, 0.3, 6)], DELTA))
    told = [event.detail for event in hospitals[0].events if event.what == "takes part"]
    costs = [epsilon([GaussianEvent(8.0, 0.3, 3 * number)], DELTA) for number in (1, 2)]
    assert [detail["protection"] for detail in told] == ["secagg+dp", "secagg+dp"]
    assert [detail["privacy"] for detail in told] == [
        {"epsilon_federation": f"{cost:.4g}", "epsilon_dataset": f"{cost:.4g}", "delta": "0.00001"} for cost in costs
    ]
    registry = Registry(stand_in.chain)
    assert [registry.declared_loss(federation, number) for number in (1, 2)] == [declared_micro(kept.config, n) for n in (1, 2)]


@pytest.mark.parametrize("wrong", [0, 10**6])
def test_aggregators_that_declare_another_loss_get_nothing_more(stand_in: StandIn, hospitals: list[Hospital], wrong: int) -> None:
    federation = joined(stand_in, hospitals)
    stand_in.declared = lambda config, rounds: wrong if wrong == 0 else declared_micro(config, rounds) + wrong
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    with pytest.raises(UnexpectedMessageError, match="another loss"):
        fetch_model(Registry(stand_in.chain), hospitals[0].client, federation, stand_in.kept[federation].config)
    stand_in.open_round(federation)
    stand_in.received.clear()
    hospitals[0].poll()
    assert "another loss" in reasons(hospitals[0], federation)[0]
    assert stand_in.received == []


def test_a_budget_that_another_release_has_spent_is_refused_in_the_last_round(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    hospital = hospitals[0]
    event = GaussianEvent(8.0, 0.3, 3)
    limit(hospital, PrivacyCap(epsilon([event, event], DELTA) * 1.001, DELTA))
    federation = joined(stand_in, hospitals)
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    # A query about the same data set, answered meanwhile.
    PrivacyLedger(hospital.journal).debit(root_of(hospital), "query q", GaussianEvent(20.0), hospital.policy.privacy)
    stand_in.open_round(federation)
    stand_in.received.clear()
    hospital.poll()
    (reason,) = reasons(hospital, federation)
    assert "rule of this site on privacy" in reason
    # Neither what was spent, nor what is left.
    assert not any(character.isdigit() for character in reason)
    assert stand_in.received == []
    assert len(debited(hospital)) == 2
    # The others finish without it.
    play(stand_in, federation, hospitals)
    assert Registry(stand_in.chain).federation(federation).round == 3
    # What is spent is spent for every other federation.
    with pytest.raises(PrivacyBudgetExceededError):
        hospital.join(found(stand_in, hospitals, seed=5, name="another"))


def test_a_site_with_a_cap_joins_no_federation_that_costs_more_or_has_no_bound(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    event = GaussianEvent(8.0, 0.3, 3)
    limit(hospitals[0], PrivacyCap(epsilon([event, event], DELTA) * 0.99, DELTA))
    with pytest.raises(PrivacyBudgetExceededError, match="does not cover"):
        hospitals[0].join(found(stand_in, hospitals, seed=1))
    with pytest.raises(PolicyError, match="no bound"):
        hospitals[0].join(stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "training")), seed=2)))
    hospitals[0].join(found(stand_in, hospitals, seed=3, rounds=1))
    # A sum of moments has no noise, and is none of this cap's business.
    hospitals[0].join(stand_in.found(FederationPlan(FederationConfig.parse(config_of(hospitals, "statistics")))))


def test_a_crash_between_debit_and_vector_costs_once_and_the_round_keeps_one_vector(
    stand_in: StandIn, hospitals: list[Hospital], rpc_url: str
) -> None:
    federation = joined(stand_in, hospitals, steps=250, privacy={**DP_SGD, "noise_multiplier": "20", "sampling_rate": "0.1"})
    stand_in.open_round(federation)
    victim, config = hospitals[0], stand_in.kept[federation].config
    victim.stop()
    if (pid := os.fork()) == 0:
        torch.set_num_threads(1)
        victim.chain = victim.line.stand_in.chain = Chain.connect(rpc_url, load(CHAIN_ID))
        victim.start()
        victim.poll()
        os._exit(0)
    _wait_until_debited(victim.journal_file)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    victim.start()
    assert len(debited(victim)) == 1
    assert victim.journal.rows("SELECT 1 FROM round_vector") == []
    # It died after its keys were kept and maybe sent; it goes on with the same attempt.
    victim.poll()
    (attempt,) = victim.records.unended()
    first = victim.records.vector(config, attempt.manifest)
    assert first is not None
    for _ in range(2):
        victim.restart()
        victim.poll()
    again = victim.records.vector(config, attempt.manifest)
    assert again is not None
    assert (first == again).all()
    assert len(debited(victim)) == 1
    # Another attempt at the round is the same release, and masks the same vector.
    for hospital in hospitals[1:]:
        hospital.poll()
    stand_in.close(federation)
    stand_in.abandon(federation)
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    assert len(debited(victim)) == 1
    assert Registry(stand_in.chain).federation(federation).round == 2


def _wait_until_debited(journal: Path) -> None:
    deadline = time.monotonic() + 60
    reader = sqlite3.connect(f"file:{journal}?mode=ro", uri=True, timeout=30)
    try:
        while not reader.execute("SELECT count(*) FROM privacy_release").fetchone()[0]:
            assert time.monotonic() < deadline, "nothing was debited"
    finally:
        reader.close()


def test_a_round_with_skellam_noise_and_a_drop_out(stand_in: StandIn, hospitals: list[Hospital]) -> None:
    federation = joined(stand_in, hospitals, rounds=1, batch_size=None, privacy=SKELLAM)
    config = stand_in.kept[federation].config
    stand_in.open_round(federation)
    for _ in ("keys", "shares"):
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(federation)
    drawn = [hospital.records.vector(config, hospital.records.unended()[0].manifest) for hospital in hospitals]
    for _ in ("masked", "unmask"):
        for hospital in hospitals[:3]:
            hospital.poll()
        stand_in.close(federation)
    (total,) = stand_in.kept[federation].sums
    assert (total == drawn[0] + drawn[1] + drawn[2]).all()
    mean = decode_update(config, total)
    assert (mean.weight, mean.loss) == (3, None)
    deviation = (site_variance(config) * 3) ** 0.5
    assert np.abs(total.view(np.int32)[:-2]).max() < 3 * deviation / 4 + 8 * deviation
    assert PrivacyLedger(hospitals[0].journal).events(root_of(hospitals[0])) == [round_event(config)]
    # Rows of one hospital alone say nothing about the noise it drew: two journals, two draws.
    assert not any((drawn[i][:-2] == drawn[j][:-2]).all() for i in range(4) for j in range(i))
