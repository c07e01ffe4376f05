"""Federations that this institution takes no further part in, because a result was signed in them that does not follow from its sum."""

from rexis.agent.journal import Journal
from rexis.encoding import to_hex


def give_up(journal: Journal, federation: bytes, reason: str) -> None:
    """Remember why nothing more is sent in a federation; the first reason stays."""
    with journal.transaction() as connection:
        added = connection.execute("INSERT OR IGNORE INTO given_up_federation VALUES (?, ?)", (federation, reason))
        if added.rowcount:
            journal.append(connection, f"federation {to_hex(federation)}", "given up", reason=reason)


def given_up(journal: Journal) -> set[bytes]:
    """Ids of the federations that were given up."""
    return {row["federation"] for row in journal.rows("SELECT federation FROM given_up_federation")}
