"""The stages survivors and unmask while this institution's own chain node is away: signatures of t participants stand in for the chain.

That the chain is away is never the aggregator's word. A node that answers decides: then nothing is signed here, and what was signed before
is not acted on. Signed is the one set that a quorum of aggregators has signed as well, so that whoever holds the signatures can have it
recorded when the chain is back, also after the round's deadline.
"""

from collections.abc import Callable

from rexis.agent.duty import Event, Report
from rexis.agent.federation.admission import round_terms
from rexis.agent.federation.records import FederationRecords, Membership, StoredAttempt
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.chain.signer import Signer
from rexis.chain.silence import ChainSilence
from rexis.client.aggregator import AggregatorClient
from rexis.client.approvals import ApprovalClient, check_approvals
from rexis.errors import UnexpectedMessageError
from rexis.protocol.federation_rounds import Survivors
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg import Participant
from rexis.secagg.consents import may_stand_in
from rexis.secagg.participant_state import Phase

Send = Callable[[StoredAttempt, Envelope], None]


class Consents:
    """Signs a survivor set, and answers for it, without the chain; only what was admitted with the chain's word before.

    Args:
        send: hands in a message that is stored.
    """

    def __init__(
        self,
        records: FederationRecords,
        registry: Registry,
        aggregator: AggregatorClient,
        signer: Signer,
        policy: SitePolicy,
        send: Send,
        report: Report,
    ) -> None:
        self._records, self._registry, self._aggregator = records, registry, aggregator
        self._signer, self._policy, self._send, self._report = signer, policy, send, report
        self._silence = ChainSilence(lambda: registry.chain)
        self._told: set[tuple[bytes, str]] = set()

    def attend(self, member: Membership, stored: StoredAttempt, stage: Stage) -> bool:
        """Do what is due at the stage survivors or unmask, if this site's node is away.

        Returns:
            Whether there was anything to do; else the chain is waited for.

        Raises:
            EquivocationError: another set was signed before, here, by another participant, or by an aggregator.
            UnexpectedMessageError: no quorum of aggregators has signed this set. Others as `Participant.consent` and `unmask`.
            UnavailableError: the aggregator does not answer.
        """
        if not self._stands_in(member, stored):
            return False
        participant = self._participant(member, stored)
        known = {message.stage: message for message in participant.sent}
        if stage not in known:
            message = self._sign(member, stored, participant) if stage is Stage.SURVIVORS else self._answer(member, stored, participant)
            if message is None:
                return False
            stored, known[stage] = self._records.keep(stored, participant, stage.value), message
        self._send(stored, known[stage])
        return True

    def _sign(self, member: Membership, stored: StoredAttempt, participant: Participant) -> Envelope:
        if participant.phase is Phase.SHARES:
            participant.open_shares(self._messages(stored, Stage.SHARES))
        message = participant.consent(self._messages(stored, Stage.MASKED))
        self._check_quorum(member, stored, participant)
        return message

    def _answer(self, member: Membership, stored: StoredAttempt, participant: Participant) -> Envelope | None:
        if participant.phase is not Phase.SURVIVORS:
            return None
        signed = self._messages(stored, Stage.SURVIVORS)
        # With fewer than the registry asks for, the others answer for what the chain has: this site's node will show it, too.
        return participant.unmask(signed) if len({message.sender for message in signed}) >= member.config.min_survivors else None

    def _stands_in(self, member: Membership, stored: StoredAttempt) -> bool:
        if not may_stand_in(member.config):
            return False
        self._silence.look()
        why = self._silence.reason(member.config.stage_s, self._policy.chain_away_stages)
        self._tell(stored, "waiting for the chain" if why is None else "the chain is away: consents stand in", why)
        return why is not None

    def _check_quorum(self, member: Membership, stored: StoredAttempt, participant: Participant) -> None:
        """Sites do not sign what the registry would refuse: a set that is not signed by a quorum of the federation's aggregators."""
        fixed = participant.survivors.fixed
        expected = Survivors(stored.federation, stored.round, stored.attempt, fixed.survivors, fixed.masked)
        client = ApprovalClient(self._aggregator.leading(stored.federation).connection)
        shown = client.approvals(stored.federation, stored.round, stored.attempt)
        check_approvals(shown, member.config, self._registry.chain_id, self._registry.address)
        signers = {approval.signer for approval in shown if approval.statement == expected}
        if len(signers) < member.config.quorum:
            raise UnexpectedMessageError(
                f"expected the signatures of {member.config.quorum} aggregators under the survivors of round {stored.round}, attempt "
                f"{stored.attempt}, got {len(signers)}: the chain would refuse this set"
            )

    def _participant(self, member: Membership, stored: StoredAttempt) -> Participant:
        terms = round_terms(member.config, stored.manifest, self._registry)
        return Participant.restore(terms, self._signer, self._records.state(stored))

    def _messages(self, stored: StoredAttempt, stage: Stage) -> tuple[Envelope, ...]:
        return self._aggregator.messages(stored.federation, stored.round, stored.attempt, stage)

    def _tell(self, stored: StoredAttempt, what: str, why: str | None) -> None:
        """Once for each attempt."""
        if (stored.ctx, what) in self._told:
            return
        self._told.add((stored.ctx, what))
        detail = {"round": stored.round, "attempt": stored.attempt}
        self._report(Event(what, stored.subject, detail if why is None else {**detail, "why": why}))
