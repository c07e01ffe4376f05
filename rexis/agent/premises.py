"""The tables that an agent serves, opened: each as it was registered, with this side's copy of its policy and its training rows."""

from dataclasses import dataclass

from rexis.agent.dataset import read_policy
from rexis.agent.federation.holding import Holding, hold
from rexis.agent.journal import Journal
from rexis.agent.registration import Target
from rexis.agent.site import Site, SiteDataset, read_training_rows
from rexis.agent.table import read_table
from rexis.errors import ConfigurationError, UnexpectedMessageError
from rexis.policy.duo import DataUsePolicy


@dataclass(frozen=True, eq=False)
class ServedTable:
    """One data set on the premises.

    Attributes:
        holding: token id, content root and rows.
        policy: what it may be used for.
        training_rows: indices of the rows that models are trained on, ascending; None for all.
    """

    holding: Holding
    policy: DataUsePolicy
    training_rows: tuple[int, ...] | None


def open_premises(site: Site, journal: Journal, *, owner: str, target: Target) -> tuple[ServedTable, ...]:
    """Open the tables of a site file.

    Raises:
        ConfigurationError: a table that was not registered with this journal, such as one that was changed since; one without a column
            that the rules call sensitive; or two that are one data set.
    """
    served = tuple(_open(dataset, site, journal, owner, target) for dataset in site.datasets)
    if len({each.holding.dataset for each in served}) < len(served):
        raise ConfigurationError("datasets: two tables are the same data set")
    return served


def _open(dataset: SiteDataset, site: Site, journal: Journal, owner: str, target: Target) -> ServedTable:
    table = read_table(dataset.table, delimiter=dataset.delimiter, exclude=dataset.exclude)
    try:
        holding = hold(journal, table, owner=owner, target=target)
    except UnexpectedMessageError as error:
        raise ConfigurationError(
            f"{dataset.table.name}: rule registered table: {owner} has not registered a table with this fingerprint to the end; "
            "restore the file, read it with the same delimiter and exclude, or register it"
        ) from error
    missing = sorted((site.queries.sensitive if site.queries is not None else frozenset()) - set(table.columns))
    if missing:
        raise ConfigurationError(f"{dataset.table.name}: queries.sensitive names {missing[0]!r}, and there is no such column")
    rows = read_training_rows(dataset.training_rows, len(table.rows)) if dataset.training_rows is not None else None
    return ServedTable(holding, read_policy(dataset.policy), rows)
