"""One total for each data set version over everything that was released about it; debited once, and refused when it is spent."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from rexis.agent.federation.site_policy import PrivacyCap
from rexis.agent.journal import Journal
from rexis.agent.privacy_ledger import PrivacyLedger
from rexis.dp.accountant import GaussianEvent, LaplaceEvent, SkellamEvent, epsilon
from rexis.errors import PrivacyBudgetExceededError, UnexpectedMessageError

ROOT, OTHER = b"r" * 32, b"o" * 32
ROUND = GaussianEvent(10.0)
DELTA = 1e-6
PASSPHRASE = "a passphrase for tests"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal.sqlite", PASSPHRASE, work_factor=2) as opened:
        yield opened


def test_federations_and_queries_of_a_data_set_version_share_one_total(journal: Journal) -> None:
    ledger = PrivacyLedger(journal)
    cap = PrivacyCap(epsilon([ROUND, ROUND, LaplaceEvent(8.0)], DELTA) * 1.001, DELTA)
    ledger.debit(ROOT, "federation a round 1", ROUND, cap)
    ledger.debit(ROOT, "query q", LaplaceEvent(8.0), cap)
    ledger.debit(ROOT, "federation b round 1", ROUND, cap)
    assert ledger.spent(ROOT, DELTA) == epsilon([ROUND, LaplaceEvent(8.0), ROUND], DELTA)
    for name in ("federation a round 2", "query p"):
        with pytest.raises(PrivacyBudgetExceededError) as refused:
            ledger.debit(ROOT, name, ROUND, cap)
        # It is logged, and what others have spent is theirs.
        assert not any(character.isdigit() for character in str(refused.value))
    assert len(ledger.events(ROOT)) == 3
    ledger.debit(OTHER, "federation a round 1", ROUND, cap)
    # Another site's δ, another figure, the same releases.
    assert ledger.spent(ROOT, 1e-9) > ledger.spent(ROOT, DELTA)


def test_a_release_is_debited_once_however_often_it_is_tried(journal: Journal) -> None:
    ledger, cap = PrivacyLedger(journal), PrivacyCap(epsilon([ROUND], DELTA) * 1.001, DELTA)
    for _ in range(3):
        ledger.debit(ROOT, "federation a round 1", ROUND, cap)
        ledger.check(ROOT, {"federation a round 1": ROUND}, cap)
    assert ledger.events(ROOT) == [ROUND]
    with pytest.raises(UnexpectedMessageError, match="another mechanism"):
        ledger.debit(ROOT, "federation a round 1", GaussianEvent(11.0), cap)
    with pytest.raises(PrivacyBudgetExceededError):
        ledger.check(ROOT, {"federation a round 1": ROUND, "federation a round 2": ROUND}, cap)


def test_every_kind_of_event_is_read_as_it_was_written_also_by_another_process(journal: Journal) -> None:
    events = [GaussianEvent(1.1, 0.1, 40), LaplaceEvent(1 / 3, 2), SkellamEvent(123.4, 5.678, 1e9 / 7, 3)]
    for number, event in enumerate(events):
        PrivacyLedger(journal).debit(ROOT, str(number), event, None)
    with Journal.open(journal.path, PASSPHRASE) as other:
        assert PrivacyLedger(other).events(ROOT) == events
        # The first process has spent nothing that the second does not see.
        with pytest.raises(PrivacyBudgetExceededError):
            PrivacyLedger(other).debit(ROOT, "more", ROUND, PrivacyCap(0.1, DELTA))


def test_nothing_that_was_debited_can_be_taken_back(journal: Journal) -> None:
    PrivacyLedger(journal).debit(ROOT, "federation a round 1", ROUND, None)
    for statement in ("DELETE FROM privacy_release", "UPDATE privacy_release SET event = '{}'"):
        with pytest.raises(sqlite3.IntegrityError, match="stays debited"), journal.transaction() as connection:
            connection.execute(statement)


@pytest.mark.parametrize(("total", "delta"), [(0.0, 1e-6), (float("nan"), 1e-6), (float("inf"), 1e-6), (1.0, 0.0), (1.0, 1.0)])
def test_a_cap_needs_epsilon_and_delta(total: float, delta: float) -> None:
    with pytest.raises(ValueError, match="expected epsilon"):
        PrivacyCap(total, delta)
