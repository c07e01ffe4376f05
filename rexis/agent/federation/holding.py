"""A registered table as the agent holds it: federations and queries run on the version that stands on chain, or not at all."""

from dataclasses import dataclass

from rexis.agent.journal import Journal
from rexis.agent.registration import Target
from rexis.agent.table import Table, fingerprint, table_digests
from rexis.errors import DigestMismatchError, UnexpectedMessageError


@dataclass(frozen=True, eq=False)
class Holding:
    """A data set on the premises.

    Attributes:
        dataset: token id.
        content_root: as registered, 32 bytes.
        table: its rows; the ones that federations are computed on, where some are kept for evaluation.
    """

    dataset: int
    content_root: bytes
    table: Table


def hold(journal: Journal, table: Table, *, owner: str, target: Target) -> Holding:
    """The data set that a table was registered as with this journal.

    Args:
        table: as it was registered.
        owner: checksum address of the registrant.
        target: where it was registered.

    Raises:
        UnexpectedMessageError: it was not, or not to the end; a table that was changed since is another one.
    """
    mark = fingerprint(table.columns, table_digests(table), journal.sealer.fingerprint_key)
    rows = journal.rows(
        "SELECT token_id, content_root FROM registration WHERE owner = ? AND chain_id = ? AND registry = ? AND fingerprint = ?",
        *(owner, target.chain_id, target.registry, mark),
    )
    if not rows or rows[0]["token_id"] is None:
        raise UnexpectedMessageError(
            f"this table is not registered by {owner}: register it, or restore the version that was; `rexis agent journal` shows what was"
        )
    return Holding(rows[0]["token_id"], rows[0]["content_root"], table)


def registered_root(journal: Journal, dataset: int, *, owner: str, target: Target) -> bytes:
    """Content root of one of this institution's data sets by its token id, 32 bytes, from the journal.

    Raises:
        UnexpectedMessageError: the journal has no such data set.
    """
    rows = journal.rows(
        "SELECT content_root FROM registration WHERE owner = ? AND chain_id = ? AND registry = ? AND token_id = ?",
        *(owner, target.chain_id, target.registry, dataset),
    )
    if not rows:
        raise UnexpectedMessageError(f"data set {dataset} was not registered with this journal: join with the journal that it was")
    root: bytes = rows[0]["content_root"]
    return root


def check_root(dataset: int, held: bytes, registered: bytes) -> None:
    """Compare the content root of this side with the one on chain.

    Raises:
        DigestMismatchError: another content is registered under this token id.
    """
    if held != registered:
        raise DigestMismatchError(f"content root of data set {dataset}", registered, held)
