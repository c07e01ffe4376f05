"""A member's statement of what a padded sum makes of the model: computed once, kept in the journal before it leaves, and never changed."""

from rexis.agent.federation.admission import check_manifest
from rexis.agent.federation.group_keys import opened_key
from rexis.agent.federation.recomputed import RecomputedRounds, recompute
from rexis.agent.federation.records import Membership
from rexis.agent.federation.registry import RegisteredFederation, Registry, Status
from rexis.agent.journal import Journal
from rexis.chain.signer import Signer
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import canonical_json, parse_canonical_json, to_hex
from rexis.errors import DigestMismatchError, EncodingError, MalformedMessageError, UnexpectedMessageError
from rexis.protocol.manifest import Manifest
from rexis.protocol.member_results import NO_RESULT, MemberResult
from rexis.protocol.secagg_messages import secagg_context, survivors_hash
from rexis.secagg.payloads import vector_record

MAX_DOCUMENT_BYTES = 4096
# The stage in which an aggregator waits for members' statements.
STAGE = "results"


class MemberResults:
    """Statements of one institution.

    Args:
        journal: opened with its passphrase.
        signer: of the institution.
        registry: its own node.
        aggregator: signed in.
    """

    def __init__(self, journal: Journal, signer: Signer, registry: Registry, aggregator: AggregatorClient) -> None:
        self._journal, self._signer, self._registry, self._aggregator = journal, signer, registry, aggregator
        self.rounds = RecomputedRounds(journal, registry, aggregator)

    def state(self, member: Membership, manifest: Manifest, seen: RegisteredFederation) -> MemberResult:
        """State the result of an attempt whose sum is open; again, the same bytes go out.

        Args:
            seen: how the federation stands on this side's node.

        Raises:
            DigestMismatchError, UnexpectedMessageError: the aggregator shows something else than stands on chain.
            FalseResultError: a round before was not what its sum gives.
            ServiceError, UnavailableError: the aggregator, or the node, does not answer.
        """
        stored = self._stored(manifest)
        if stored is None:
            self._keep(manifest, self._made(member, manifest, seen))
            stored = self._stored(manifest)
            assert stored is not None
        self._aggregator.state_result(stored)
        return stored

    def _made(self, member: Membership, manifest: Manifest, seen: RegisteredFederation) -> MemberResult:
        config, federation = member.config, member.federation
        key = opened_key(self._journal, federation)
        if not config.group_pad or key is None or seen.status is not Status.FIXED:
            raise UnexpectedMessageError(f"federation {to_hex(federation)} has no padded sum that this member could open")
        check_manifest(config, manifest, seen)
        chain = (self._registry.chain_id, self._registry.address)
        ctx = secagg_context(*chain, federation, manifest.round, manifest.attempt, manifest.digest)
        survivors = self._registry.survivors(federation, manifest.round)
        if survivors_hash(ctx, list(survivors)) != seen.survivors_hash:
            raise DigestMismatchError(f"survivors of round {manifest.round}", seen.survivors_hash, survivors_hash(ctx, list(survivors)))
        base = self.rounds.after(federation, config, manifest.round - 1)
        if base.record != manifest.base_model:
            raise DigestMismatchError(f"model that round {manifest.round} starts from", manifest.base_model, base.record)
        opened = self.rounds.opened(federation, config, manifest.round, manifest.attempt, ctx, survivors)
        try:
            made = recompute(config, base, opened)
            model, metrics = made.record, made.metrics_digest
        except (MalformedMessageError, EncodingError):
            # A member's vector, or its pad, is not what it should be: said, so that nobody waits.
            model = metrics = NO_RESULT
        place = (federation, manifest.round, manifest.attempt)
        result = MemberResult(
            self._signer.address, *place, seen.survivors_hash, vector_record(opened.total), key.commitment, model, metrics
        )
        return result.signed(self._signer.sign_typed_data(result.typed_data(*chain)))

    def _stored(self, manifest: Manifest) -> MemberResult | None:
        query = "SELECT document FROM stated_result WHERE federation = ? AND round = ? AND attempt = ?"
        rows = self._journal.rows(query, manifest.federation, manifest.round, manifest.attempt)
        return MemberResult.parse(parse_canonical_json(rows[0]["document"], max_bytes=MAX_DOCUMENT_BYTES)) if rows else None

    def _keep(self, manifest: Manifest, result: MemberResult) -> None:
        values = (manifest.federation, manifest.round, manifest.attempt, canonical_json(result.document()))
        with self._journal.transaction() as connection:
            added = connection.execute("INSERT OR IGNORE INTO stated_result VALUES (?, ?, ?, ?)", values)
            if added.rowcount:
                detail = {"round": manifest.round, "attempt": manifest.attempt, "model": to_hex(result.model)}
                self._journal.append(connection, f"federation {to_hex(manifest.federation)}", "result", **detail)
