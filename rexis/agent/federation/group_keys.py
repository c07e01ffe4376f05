"""How a member, or the founder, of a federation comes to its group key: publish, deal or wait, open, and keep it sealed in the journal.

    published → dealt (by one member) → opened

Everything is in the journal before it leaves, so that a crash sends the same documents again. The aggregator passes documents on and
keeps the first dealing for good. What it can do is to leave documents away, and then no round begins; or, where two members dealt at the
same time, to show one dealing to some and the other to others. It learns neither key by that: pads of two keys only make sums that
nobody can open, so that members come to no common result and the round is aborted.
"""

import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rexis.agent.federation.admission import check_roster
from rexis.agent.federation.registry import Registry
from rexis.agent.journal import Journal
from rexis.chain.signer import Signer
from rexis.client.connection import Connection
from rexis.client.group_keys import GroupKeyClient, GroupKeyDocuments
from rexis.encoding import canonical_json, parse_canonical_json, to_hex
from rexis.errors import DigestMismatchError, ServiceError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.group_keys import MAX_DEALING_BYTES, GroupKeyDealing, GroupKeyRecipient, check_recipients, recipients_of
from rexis.secagg.group_dealing import deal_group_key, open_group_key
from rexis.secagg.group_pad import GROUP_KEY_SIZE
from rexis.secagg.key_agreement import KEY_SIZE, check_public_key, public_key

# Each member lets those before it in the roster go first.
PATIENCE_S = 2.0
DEALT = "urn:rexis:problem:group-key-dealt"


@dataclass(frozen=True)
class GroupKey:
    """A federation's group key: 32 bytes, and the commitment by which it is named among those who have it, 32 bytes."""

    key: bytes
    commitment: bytes


def group_key(journal: Journal, federation: bytes) -> bytes | None:
    """The group key of a federation, 32 bytes; None before it was dealt and opened.

    Raises:
        KeyFileError: the journal was opened without its passphrase.
    """
    found = opened_key(journal, federation)
    return None if found is None else found.key


def opened_key(journal: Journal, federation: bytes) -> GroupKey | None:
    """The group key with its commitment; as `group_key`."""
    rows = journal.rows("SELECT commitment, sealed_key FROM group_key WHERE federation = ?", federation)
    if not rows or rows[0]["sealed_key"] is None:
        return None
    return GroupKey(journal.sealer.open_field(rows[0]["sealed_key"], _place("key", federation)), rows[0]["commitment"])


class GroupKeys:
    """One institution's part in the agreement on group keys.

    Args:
        journal: opened with its passphrase.
        signer: of the institution.
        registry: its own node.
        connection: to the aggregator, signed in.
        clock: seconds; only how long a member waits for those before it hangs on it.
        leading: the connection to the aggregator of a federation, where a site names several.
    """

    def __init__(
        self,
        journal: Journal,
        signer: Signer,
        registry: Registry,
        connection: Connection,
        *,
        clock: Callable[[], float] = monotonic,
        leading: Callable[[bytes], Connection] | None = None,
    ) -> None:
        self._journal, self._signer, self._registry = journal, signer, registry
        self._leading, self._clock = leading or (lambda _federation: connection), clock
        self._complete_since: dict[bytes, float] = {}

    def _client(self, federation: bytes) -> GroupKeyClient:
        return GroupKeyClient(self._leading(federation))

    def publish(self, federation: bytes, config: FederationConfig) -> None:
        """Hand in this institution's public key, made and stored once; safe to repeat.

        Raises:
            UnexpectedMessageError: it is to have no group key in this federation.
            ServiceError, UnavailableError: the aggregator does not take it.
        """
        self._check(config)
        self._client(federation).publish(self._recipient(federation))

    def agree(self, federation: bytes, config: FederationConfig) -> bytes | None:
        """One step towards the group key.

        Args:
            config: as its digest stands on chain.

        Returns:
            The key, 32 bytes; None while somebody else has to act first.

        Raises:
            SignatureError, UnexpectedMessageError, InvalidShareError, DigestMismatchError: a document is not its author's, or not for those
                whom the config names; nothing was kept.
            ServiceError, UnavailableError: the aggregator, or the node, does not answer.
        """
        known = group_key(self._journal, federation)
        if known is not None:
            return known
        self._check(config)
        check_roster(federation, config, self._registry)
        own, documents = self._recipient(federation), self._client(federation).documents(federation)
        if own.recipient not in {each.recipient for each in documents.recipients}:
            self._client(federation).publish(own)
            documents = self._client(federation).documents(federation)
        if documents.dealing is None:
            dealing = self._deal(federation, config, documents)
            if dealing is None:
                return None
            documents = self._hand_in(dealing)
        if documents.dealing is None:
            return None
        return self._open(documents.dealing, config)

    def _deal(self, federation: bytes, config: FederationConfig, documents: GroupKeyDocuments) -> GroupKeyDealing | None:
        """This member's dealing, stored before it is handed in; None if it is not its turn."""
        if self._signer.address not in config.roster:
            return None
        found = check_recipients(documents.recipients, federation, self._registry.chain_id, self._registry.address)
        if tuple(sorted(found, key=str.lower)) != recipients_of(config):
            return None
        since = self._complete_since.setdefault(federation, self._clock())
        if self._clock() - since < PATIENCE_S * config.roster.index(self._signer.address):
            return None
        for recipient, key in found.items():
            check_public_key(f"group key of {recipient}:", key)
        row = self._row(federation)
        if row["dealing"] is None:
            dealing = deal_group_key(federation, self._signer.address, self._private(federation), found, os.urandom(GROUP_KEY_SIZE))
            signed = dealing.signed(self._signer.sign_typed_data(dealing.typed_data(self._registry.chain_id, self._registry.address)))
            with self._journal.transaction() as connection:
                # Of two agents on one journal, the first one's dealing counts.
                content = canonical_json(signed.document())
                connection.execute("UPDATE group_key SET dealing = ? WHERE federation = ? AND dealing IS NULL", (content, federation))
            row = self._row(federation)
        return GroupKeyDealing.parse(parse_canonical_json(row["dealing"], max_bytes=MAX_DEALING_BYTES))

    def _hand_in(self, dealing: GroupKeyDealing) -> GroupKeyDocuments:
        try:
            self._client(dealing.federation).deal(dealing)
        except ServiceError as error:
            # Somebody else's came first, and counts.
            if error.problem.get("type") != DEALT:
                raise
        return self._client(dealing.federation).documents(dealing.federation)

    def _open(self, dealing: GroupKeyDealing, config: FederationConfig) -> bytes:
        dealing.verify(config, self._registry.chain_id, self._registry.address)
        opened = open_group_key(dealing, self._signer.address, self._private(dealing.federation))
        sealed = self._journal.sealer.seal(opened, _place("key", dealing.federation))
        with self._journal.transaction() as connection:
            kept = connection.execute(
                # What opens dealings is of no use any more, and goes.
                "UPDATE group_key SET sealed_key = ?, commitment = ?, sealed_private = NULL, dealing = NULL"
                " WHERE federation = ? AND sealed_key IS NULL",
                (sealed, dealing.commitment, dealing.federation),
            )
            if kept.rowcount:
                subject = f"federation {to_hex(dealing.federation)}"
                self._journal.append(connection, subject, "group key", dealer=dealing.dealer, commitment=to_hex(dealing.commitment))
        stands = opened_key(self._journal, dealing.federation)
        assert stands is not None
        if stands.commitment != dealing.commitment:
            raise DigestMismatchError("group key", stands.commitment, dealing.commitment)
        return stands.key

    def _recipient(self, federation: bytes) -> GroupKeyRecipient:
        """This institution's published key, made and stored before it is handed in for the first time."""
        rows = self._journal.rows("SELECT recipient FROM group_key WHERE federation = ?", federation)
        if not rows:
            private = X25519PrivateKey.from_private_bytes(os.urandom(KEY_SIZE))
            made = GroupKeyRecipient(federation, self._signer.address, public_key(private))
            signed = made.signed(self._signer.sign_typed_data(made.typed_data(self._registry.chain_id, self._registry.address)))
            sealed = self._journal.sealer.seal(private.private_bytes_raw(), _place("private", federation))
            with self._journal.transaction() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO group_key (federation, recipient, sealed_private) VALUES (?, ?, ?)",
                    (federation, canonical_json(signed.document()), sealed),
                )
        return GroupKeyRecipient.parse(parse_canonical_json(self._row(federation)["recipient"], max_bytes=MAX_DEALING_BYTES))

    def _private(self, federation: bytes) -> X25519PrivateKey:
        sealed = self._row(federation)["sealed_private"]
        if sealed is None:
            raise UnexpectedMessageError("another agent has opened the group key with this journal: run one agent for each journal")
        return X25519PrivateKey.from_private_bytes(self._journal.sealer.open_field(sealed, _place("private", federation)))

    def _row(self, federation: bytes) -> sqlite3.Row:
        (row,) = self._journal.rows("SELECT * FROM group_key WHERE federation = ?", federation)
        return row

    def _check(self, config: FederationConfig) -> None:
        if not config.has_group_key or self._signer.address not in recipients_of(config):
            raise UnexpectedMessageError(f"{self._signer.address} is to have no group key in this federation")


def _place(column: str, federation: bytes) -> str:
    return f"group_key.{column}:{to_hex(federation)}"
