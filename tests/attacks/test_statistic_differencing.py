"""Attacks on sums of counts: two tables that are subtracted, a refusal that is read as an answer, members who subtract their own rows.

The attacker knows everything but one patient's diagnosis, and asks for tables that differ by this patient. What an exact sum would show is
shown here, and then that it is not given; counts with noise are given, and the attacker is to do little better than a coin.
"""

from pathlib import Path

import numpy as np
import pytest

from rexis.agent.federation.asked_statistics import AskedStatistics, answer, answered_once
from rexis.agent.federation.counting import count_rows, rest_of, statistic_vector
from rexis.agent.federation.site_policy import PrivacyCap, SitePolicy
from rexis.agent.journal import Journal
from rexis.agent.table import Table
from rexis.errors import PolicyError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import TablePlan
from rexis.secagg.statistics import ContingencyTable, decode_statistic
from rexis.secagg.statistics.counts import decode_counts, encode_counts
from tests.unit.counting_plans import config_of, noisy

ROOT, OTHER_ROOT = bytes(32), bytes(31) + b"\x01"
SITES, TRIALS = 3, 1000


def table_of(edge: int) -> dict[str, object]:
    dimensions = [{"column": "age", "bands": [str(edge)]}, {"column": "ill", "levels": ["0", "1"]}]
    return {"identifier": "table", "dimensions": dimensions, "minimum_cell": 5}


def sites(*, ill: bool) -> list[Table]:
    """Three sites; the only patient of 50 is at the first one."""
    generator = np.random.default_rng(9)
    ages = [generator.choice([*range(30, 50), *range(51, 80)], 80) for _ in range(SITES)]
    rows = [[(str(age), str(generator.integers(2))) for age in each] for each in ages]
    rows[0].append(("50", str(int(ill))))
    return [Table(("age", "ill"), tuple(each)) for each in rows]


def opened(config: FederationConfig, tables: list[Table]) -> ContingencyTable:
    found = decode_statistic(config, sum((statistic_vector(config, each) for each in tables), np.zeros(config.length, dtype=np.uint64)))
    assert isinstance(found, ContingencyTable)
    return found


@pytest.mark.parametrize("ill", [False, True])
def test_two_exact_tables_a_year_apart_would_show_a_diagnosis_so_the_second_is_not_given(ill: bool, tmp_path: Path) -> None:
    first, second = (config_of(table_of(edge)) for edge in (50, 51))
    tables = sites(ill=ill)
    # Every cell of both is large, at each site: no minimum would have stopped this.
    difference = opened(second, tables).named[0] - opened(first, tables).named[0]
    assert difference.tolist() == [int(not ill), int(ill)]
    with journal_with(tmp_path, 2) as journal:
        asked, policy = AskedStatistics(journal), SitePolicy(cell=5)
        asked.claim(first, ROOT, federation(1), policy)
        with journal.transaction() as connection:
            answer(connection, answered_once(first), ROOT, federation(1))
        with pytest.raises(PolicyError, match="counts of age"):
            asked.claim(second, ROOT, federation(2), policy)
        # Nor for other institutions, whose sum differs by whole sites; again for the same one it is the same answer.
        with pytest.raises(PolicyError, match="counts of age"):
            asked.claim(first, ROOT, federation(2), policy)
        asked.claim(first, ROOT, federation(1), policy)
        asked.claim(second, OTHER_ROOT, federation(2), policy)
        # Two processes that both passed the check: the step that answers checks again, with what it stores.
        with pytest.raises(PolicyError, match="counts of age"), journal.transaction() as connection:
            answer(connection, answered_once(second), ROOT, federation(2))


def test_two_noisy_tables_a_year_apart_do_not_show_it() -> None:
    configs = [config_of(noisy(table_of(edge))) for edge in (50, 51)]
    plans = [config.statistics for config in configs if isinstance(config.statistics, TablePlan)]
    generator, right = np.random.default_rng(3), 0
    exact = {ill: [[(plan, count_rows(plan, each)) for each in sites(ill=ill)] for plan in plans] for ill in (False, True)}
    for _ in range(TRIALS):
        ill = bool(generator.integers(2))
        seen = []
        for config, counts in zip(configs, exact[ill], strict=True):
            vectors = [encode_counts(config, each, rest_of(plan)) for plan, each in counts]
            seen.append(decode_counts(config, np.sum(vectors, axis=0, dtype=np.uint64)).reshape(counts[0][0].shape))
        # The likelier of the two: where more were added between the tables, the healthy or the ill.
        added = seen[1][0, :2] - seen[0][0, :2]
        right += (added[1] > added[0] or (added[1] == added[0] and bool(generator.integers(2)))) == ill
    assert right / TRIALS < 0.60


def test_a_refusal_is_an_answer_and_is_given_a_few_times_only(tmp_path: Path) -> None:
    """Four patients of 50 are known to be ill; whether the site counts this cell says what the fifth has."""
    plan = {**table_of(50), "dimensions": [{"column": "age", "levels": ["50"]}, {"column": "ill", "levels": ["1"]}]}
    config = config_of(plan)
    for ill in (False, True):
        table = Table(("age", "ill"), tuple([("50", "1")] * 4 + [("50", str(int(ill)))]))
        if ill:
            statistic_vector(config, table)
        else:
            with pytest.raises(PolicyError, match="rule on cells"):
                statistic_vector(config, table)
    with journal_with(tmp_path, 5) as journal:
        asked, policy = AskedStatistics(journal), SitePolicy(cell=5)
        for number in (1, 2, 3):
            asked.claim(config_of({**plan, "minimum_cell": 4 + number}), ROOT, federation(number), policy)
        for refused in (config, config_of({**table_of(60)}), config_of(noisy(plan))):
            with pytest.raises(PolicyError, match="at most 3 federations that count column 'age'"):
                asked.claim(refused, ROOT, federation(4), policy)
        # Asked again by the same federation after a crash, or of another version of the data, it is no further bit.
        asked.claim(config, ROOT, federation(2), policy)
        asked.claim(config, OTHER_ROOT, federation(4), policy)
        # With a cap the ledger of the data set decides about noise, which never stays away because of a count.
        asked.claim(config_of(noisy(plan)), ROOT, federation(5), SitePolicy(cell=5, privacy=PrivacyCap(3.0, 1e-5)))


def test_members_that_subtract_their_own_rows_find_no_small_cell() -> None:
    config = config_of(table_of(50))
    tables = sites(ill=True)
    total = opened(config, tables)
    plan = config.statistics
    assert isinstance(plan, TablePlan)
    own = [count_rows(plan, each).reshape(plan.shape) for each in tables]
    for victim in range(SITES):
        left = total.counts - sum(each for place, each in enumerate(own) if place != victim)
        assert left.sum() == len(tables[victim].rows)
        assert left[left > 0].min() >= 5


def federation(number: int) -> bytes:
    return bytes([number]) * 32


def journal_with(folder: Path, federations: int) -> Journal:
    journal = Journal.open(folder / "journal.sqlite", "correct horse battery staple", work_factor=2)
    with journal.transaction() as connection:
        rows = [(federation(number), b"{}", ROOT) for number in range(1, federations + 1)]
        connection.executemany("INSERT INTO federation (id, config, content_root) VALUES (?, ?, ?)", rows)
    return journal
