"""Rows that a site never trains on, so that their loss says when training has converged: the same ones in every round.

Which ones is drawn with a key that never leaves the journal, from what a row says: equal rows are on the same side, and nobody else can
tell who is held back.
"""

import hmac
import math
from decimal import Decimal

from rexis.agent.sealing import Sealer
from rexis.agent.table import Table
from rexis.encoding import canonical_json, domain_tag
from rexis.errors import PrivacyError


def holdout_key(sealer: Sealer, content_root: bytes) -> bytes:
    """The secret salt of a data set's split, 32 bytes; alike in all federations, so that no model has seen another one's held-out rows."""
    return hmac.digest(sealer.fingerprint_key, domain_tag("holdout", 1) + b"\0" + content_root, "sha256")


def hold_back(table: Table, share: Decimal, key: bytes) -> tuple[Table, Table]:
    """Split a table into the rows to train on and those that are held back, each in the table's order.

    Args:
        share: of the rows to hold back, rounded up; more where rows are equal.
        key: from `holdout_key`.

    Raises:
        PrivacyError: nothing would be left to train on; the message has no number of this site in it.
    """
    digests = [hmac.digest(key, canonical_json(list(row)), "sha256") for row in table.rows]
    last = sorted(digests)[math.ceil(share * len(digests)) - 1]
    trained = tuple(row for row, digest in zip(table.rows, digests, strict=True) if digest > last)
    held = tuple(row for row, digest in zip(table.rows, digests, strict=True) if digest <= last)
    if not trained:
        raise PrivacyError("no row is left to train on: the table has too few different ones to hold some back")
    return Table(table.columns, trained), Table(table.columns, held)
