"""What an agent says that a round gives away: never more comfort than the config and the ledger have."""

from pathlib import Path
from typing import Any

import pytest

from rexis.agent.federation.exposure import MEANINGS, protection_line, round_exposure
from rexis.agent.federation.records import Membership
from rexis.agent.journal import Journal
from rexis.agent.privacy_ledger import PrivacyLedger
from rexis.dp.accountant import GaussianEvent, epsilon
from rexis.protocol.federation_config import FederationConfig
from rexis.secagg.privacy import round_event
from tests.unit.test_counting_statistics import TABLE, config_of, noisy
from tests.unit.test_federation_config import CONFIG, PARTS

ROOT, DELTA = b"\5" * 32, 1e-5


def exposed(folder: Path, config: FederationConfig, round_number: int = 1) -> dict[str, Any]:
    """What is said of a round after it was debited, beside a query about the same data."""
    with Journal.open(folder / "journal.sqlite", "a passphrase for tests", work_factor=2) as journal:
        ledger, event = PrivacyLedger(journal), round_event(config)
        ledger.debit(ROOT, "query q", GaussianEvent(6.0), None)
        if event is not None:
            for number in range(1, round_number + 1):
                ledger.debit(ROOT, f"round {number}", event, None)
        return round_exposure(journal, Membership(bytes(32), config, ROOT, None), round_number)


@pytest.mark.parametrize("protection", ["none", "secagg", "ee"])
def test_without_noise_there_is_no_bound_whatever_else_was_released(tmp_path: Path, protection: str) -> None:
    config = FederationConfig.parse({**CONFIG, "protection": protection, "collusion_bound": 0})
    said = exposed(tmp_path, config)
    assert (said["protection"], said["privacy"]) == (protection, "no bound")
    assert said["protection_means"] == MEANINGS[config.protection]
    assert protection_line(config) == f"{protection}: {MEANINGS[config.protection]}"
    assert ("every single institution" in said["protection_means"]) == (protection == "none")


def test_training_with_noise_says_what_it_cost_and_what_the_data_set_did(tmp_path: Path) -> None:
    training = {**CONFIG["training"], "batch_size": 8, "privacy": PARTS["privacy"]}
    config = FederationConfig.parse({**CONFIG, "protection": "secagg+dp", "training": training})
    event, privacy = round_event(config), config.privacy
    assert event is not None
    assert privacy is not None
    delta = float(privacy.delta)
    said = exposed(tmp_path, config, 2)["privacy"]
    assert said["delta"] == str(privacy.delta)
    assert float(said["epsilon_federation"]) == pytest.approx(epsilon([event, event], delta), rel=1e-3)
    assert float(said["epsilon_dataset"]) == pytest.approx(epsilon([GaussianEvent(6.0), event, event], delta), rel=1e-3)


def test_counts_with_noise_have_a_bound_too(tmp_path: Path) -> None:
    said = exposed(tmp_path, config_of(noisy(TABLE)))["privacy"]
    assert 0 < float(said["epsilon_federation"]) < float(said["epsilon_dataset"])
