"""What a site has answered, and was asked, of statistics about a data set version: what others could subtract is answered once.

moments             once, for one federation.
exact counts        once about each column: two tables that cut a column differently differ by the patients between the cuts, and a second
                    sum over other institutions differs from the first by one site.
counts with noise   as often as the privacy ledger admits.

A refusal because of a small cell is an answer of one bit, so a column is counted for a few federations only, answered or refused. Noise
is under that limit as well where the site has no cap on ε. A federation is written down before anything is counted for it.

All of it is by data set version: exact sums over two versions that differ by a few patients differ by those. An owner who lets others count
exactly registers new versions on a schedule, and not with each patient.
"""

import sqlite3

from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.journal import Journal
from rexis.encoding import to_hex
from rexis.errors import PolicyError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.statistics_plans import MomentsPlan


def answered_once(config: FederationConfig) -> tuple[str, ...]:
    """Names of what a federation's vector answers for good, in the journal; () for training, and for counts with noise."""
    plan = config.statistics
    if plan is None:
        return ()
    if isinstance(plan, MomentsPlan):
        return (plan.identifier,)
    return tuple(f"counts of {column}" for column in plan.columns) if plan.rule.privacy is None else ()


def answer(connection: sqlite3.Connection, names: tuple[str, ...], content_root: bytes, federation: bytes) -> None:
    """Write down what is answered with the step that the transaction stores.

    Raises:
        PolicyError: some of it was answered for another federation.
    """
    for name in names:
        connection.execute("INSERT OR IGNORE INTO answered_statistic VALUES (?, ?, ?)", (name, content_root, federation))
    _check_answered(connection, names, content_root, federation)


class AskedStatistics:
    """The journal's tables `answered_statistic` and `asked_column`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def check(self, config: FederationConfig, content_root: bytes, federation: bytes, policy: SitePolicy) -> None:
        """Check that a federation's statistic may still be answered; nothing for training.

        Args:
            content_root: of the data set version, 32 bytes.
            federation: id, 32 bytes.

        Raises:
            PolicyError: it, or counts of one of its columns, was answered for another federation, or a column was counted too often.
        """
        with self._journal.transaction() as connection:
            _check_answered(connection, answered_once(config), content_root, federation)
            _check_asked(connection, _limited_columns(config, policy), content_root, federation, policy)

    def claim(self, config: FederationConfig, content_root: bytes, federation: bytes, policy: SitePolicy) -> None:
        """Check as `check`, and write down that this federation asks; again, it changes nothing."""
        columns = _limited_columns(config, policy)
        with self._journal.transaction() as connection:
            _check_answered(connection, answered_once(config), content_root, federation)
            _check_asked(connection, columns, content_root, federation, policy)
            rows = [(content_root, column, federation) for column in columns]
            connection.executemany("INSERT OR IGNORE INTO asked_column VALUES (?, ?, ?)", rows)


def _limited_columns(config: FederationConfig, policy: SitePolicy) -> tuple[str, ...]:
    plan = config.statistics
    if plan is None or isinstance(plan, MomentsPlan) or (plan.rule.privacy is not None and policy.privacy is not None):
        return ()
    return plan.columns


def _check_answered(connection: sqlite3.Connection, names: tuple[str, ...], content_root: bytes, federation: bytes) -> None:
    for name in names:
        row = connection.execute(
            "SELECT federation FROM answered_statistic WHERE identifier = ? AND content_root = ?", (name, content_root)
        ).fetchone()
        if row is not None and row["federation"] != federation:
            raise PolicyError(
                f"rule on statistics: {name} of data set {to_hex(content_root)} was answered for federation {to_hex(row['federation'])}; "
                "another sum could be subtracted from it, so it is answered once: use that federation's result, or ask for counts with "
                "noise"
            )


def _check_asked(
    connection: sqlite3.Connection, columns: tuple[str, ...], content_root: bytes, federation: bytes, policy: SitePolicy
) -> None:
    for column in columns:
        row = connection.execute(
            "SELECT COUNT(*) AS others FROM asked_column WHERE content_root = ? AND column_name = ? AND federation != ?",
            (content_root, column, federation),
        ).fetchone()
        if row["others"] >= policy.counts:
            raise PolicyError(
                f"rule of this site on counts: expected at most {policy.counts} federations that count column {column!r} of data set "
                f"{to_hex(content_root)}, there were as many before: refusals tell something as well"
            )
