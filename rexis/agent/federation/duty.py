"""The agent's part in running rounds: asks what is due, checks it against its own chain node, and sends what was stored before.

Whatever cannot be right drops this institution out of the attempt, for good; whatever does not answer is tried again in the next pass,
with the same bytes. The local training runs between the stages keys and shares, while the others' keys arrive.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, time

from rexis.agent.duty import Event, OnStep, Report
from rexis.agent.federation.admission import admit, check_grant, check_manifest, graph_seed, round_terms
from rexis.agent.federation.asked_statistics import answered_once
from rexis.agent.federation.consents import Consents
from rexis.agent.federation.contribution import load_training
from rexis.agent.federation.exposure import round_exposure
from rexis.agent.federation.group_keys import GroupKeys, group_key
from rexis.agent.federation.holding import Holding, check_root
from rexis.agent.federation.local_rounds import LocalRounds
from rexis.agent.federation.member_results import STAGE as RESULTS
from rexis.agent.federation.member_results import MemberResults
from rexis.agent.federation.pending_group_keys import PendingGroupKeys
from rexis.agent.federation.private_rounds import check_round
from rexis.agent.federation.records import FederationRecords, Membership, StoredAttempt, subject_of
from rexis.agent.federation.registry import RegisteredFederation, Registry, Status
from rexis.agent.federation.result_duty import OUT_OF_STEP, ResultDuty
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.text_bases import TextBases
from rexis.agent.federation.update_commitments import UpdateCommitments
from rexis.agent.journal import Journal
from rexis.chain.connection import Chain
from rexis.chain.signer import Signer
from rexis.client.aggregator import AggregatorClient, WorkItem
from rexis.client.uploads import create_upload, upload_file
from rexis.errors import FalseResultError, RexisError, ServiceError, UnavailableError, UnexpectedMessageError
from rexis.protocol.manifest import SLACK_S, Manifest
from rexis.protocol.secagg_messages import Envelope, Stage, secagg_context
from rexis.secagg import Participant
from rexis.secagg.history import Outcome
from rexis.secagg.masks import RingVector
from rexis.secagg.participant_state import Phase
from rexis.secagg.plain_participant import AnyParticipant, PlainParticipant
from rexis.secagg.terms import RoundTerms

# How often attempts that the aggregator no longer names are looked up on chain.
SETTLE_S = 2.0
# Where a participant's messages are taken, and what the federation's status on chain is meanwhile.
STATUSES = {Stage.KEYS: Status.OPEN, Stage.SHARES: Status.OPEN, Stage.MASKED: Status.OPEN, Stage.UNMASK: Status.FIXED}


class FederationDuty:
    """What an institution does in the federations that it joined; call `poll` again and again, from one thread.

    Args:
        journal: opened with its passphrase.
        signer: of the institution.
        chain: its own node.
        aggregator: signed in.
        holdings: its registered tables by token id.
        policy: of this site.
        bases: encoders that this site has for text classifiers.
        report: told what happens.
        on_step: told how far long work is: local training, and the upload of a masked vector.
    """

    name = "federations"

    def __init__(
        self,
        journal: Journal,
        signer: Signer,
        chain: Chain,
        aggregator: AggregatorClient,
        holdings: Mapping[int, Holding],
        policy: SitePolicy | None = None,
        *,
        bases: TextBases | None = None,
        report: Report = lambda _event: None,
        on_step: OnStep = lambda _name, _done, _total: None,
    ) -> None:
        self.records = FederationRecords(journal)
        self.registry = Registry(chain)
        self.policy = policy or SitePolicy()
        self._signer, self._aggregator, self._holdings = signer, aggregator, holdings
        self._report, self._on_step = report, on_step
        self._memberships: dict[bytes, Membership] = {}
        self.rounds = LocalRounds(self.records, self.registry, aggregator, signer.address, self.policy, bases)
        self._consents = Consents(self.records, self.registry, aggregator, signer, self.policy, self._send, report)
        line = aggregator.connection
        keys = GroupKeys(journal, signer, self.registry, line, leading=lambda federation: aggregator.leading(federation).connection)
        self.group_keys = PendingGroupKeys(keys, self.records, report)
        self._results = ResultDuty(MemberResults(journal, signer, self.registry, aggregator), self.records, self.registry, report)
        self._commitments = UpdateCommitments(self.records, self.registry, aggregator, signer)
        self._settled_at = float("-inf")
        load_training()

    def poll(self) -> bool:
        """Do what is due now.

        Returns:
            Whether a round is under way, so that something is due again soon.

        Raises:
            UnavailableError: the aggregator or the node does not answer; call again later.
            ServiceError: the aggregator refuses to say what is due.
        """
        items = self._aggregator.work()
        self.group_keys.agree()
        unanswered: UnavailableError | None = None
        for item in items:
            try:
                self._attend(item)
            except UnavailableError as error:
                # What waits for the chain keeps nothing waiting that can do without.
                unanswered = error
        running = {(item.federation, item.round, item.attempt) for item in items}
        if monotonic() - self._settled_at >= SETTLE_S:
            self._settle(running)
            self._settled_at = monotonic()
        if unanswered is not None:
            raise unanswered
        return any(self._membership(item.federation) is not None for item in items)

    def _attend(self, item: WorkItem) -> None:
        member = self._membership(item.federation)
        if member is None or not (item.due or item.commitment_due):
            return
        manifest = item.manifest
        if (manifest.federation, manifest.round, manifest.attempt) != (item.federation, item.round, item.attempt):
            return
        # A round may begin a moment before this member has opened what was dealt to it.
        if member.config.has_group_key and not self.group_keys.is_agreed(item.federation):
            return
        if item.stage == RESULTS:
            self._results.state(member, manifest)
        elif item.stage in set(Stage):
            self._take_part(member, item, Stage(item.stage))

    def _take_part(self, member: Membership, item: WorkItem, stage: Stage) -> None:
        manifest = item.manifest
        stored = self.records.attempt(*_numbers(manifest))
        first = Stage.KEYS if member.config.masked else Stage.MASKED
        # An attempt that was not joined at its beginning is none of ours, one that was given up is never taken up again.
        if (stored is None and not (stage is first and item.due)) or (stored is not None and not stored.is_open):
            return
        try:
            if stored is not None and item.due and stage in (Stage.SURVIVORS, Stage.UNMASK):
                self._open(member, stored, item)
            else:
                self._with_chain(member, stored, item)
        except UnavailableError:
            raise
        except ServiceError as error:
            if error.status >= 500 or error.status in (401, 429):
                raise UnavailableError(f"the aggregator can not take this now: {error}") from error
            if error.problem.get("type") not in OUT_OF_STEP:
                self._give_up(manifest, str(error))
        except FalseResultError as error:
            self._give_up(manifest, str(error))
            self._results.leave(manifest.federation, str(error))
        except RexisError as error:
            self._give_up(manifest, str(error))
        except ValueError:
            self._give_up(manifest, "the numbers of the federation contradict each other")

    def _with_chain(self, member: Membership, stored: StoredAttempt | None, item: WorkItem) -> None:
        seen = self.registry.federation(item.federation)
        # This site's node may be behind, or the aggregator.
        if (seen.round, seen.attempt) != (item.round, item.attempt) or seen.status is not STATUSES.get(Stage(item.stage)):
            return
        if stored is None:
            self._begin(member, item.manifest, seen)
        else:
            self._go_on(member, stored, item, seen)

    def _open(self, member: Membership, stored: StoredAttempt, item: WorkItem) -> None:
        """Stages survivors and unmask: what the chain has fixed decides; while it is away, what participants signed."""
        stage = Stage(item.stage)
        try:
            seen = self.registry.federation(item.federation)
        except UnavailableError:
            if not self._consents.attend(member, stored, stage):
                raise
            return
        if (seen.round, seen.attempt) != (item.round, item.attempt):
            return
        if stage is Stage.UNMASK and seen.status is Status.FIXED:
            self._go_on(member, stored, item, seen)
        elif seen.status is Status.OPEN:
            # A node that still answers may have been without a new block for long.
            self._consents.attend(member, stored, stage)

    def _begin(self, member: Membership, manifest: Manifest, seen: RegisteredFederation) -> None:
        terms = admit(member.config, manifest, seen, self.registry, self.policy, self._signer.address)
        self.rounds.check(member, manifest, self._holding(member).table)
        check_round(self.records, self.registry, member, manifest, self.policy)
        for before in self.records.open_before(manifest):
            self.records.drop(before, "a later attempt at this round has begun")
        earlier, since = self.records.earlier(terms), self.registry.block_number()
        if not terms.masked:
            giver = PlainParticipant(terms, self._signer, earlier=earlier)
            stored = self.records.begin(giver, manifest, since)
            self._contribute(member, stored, terms)
            self._give(member, stored, giver)
            return
        participant = Participant(terms, self._signer, earlier=earlier, group_key=self._group_key(member))
        message = participant.announce_keys()
        stored = self.records.begin(participant, manifest, since)
        self._send(stored, message)
        self._contribute(member, stored, terms)

    def _go_on(self, member: Membership, stored: StoredAttempt, item: WorkItem, seen: RegisteredFederation) -> None:
        check_manifest(member.config, stored.manifest, seen)
        terms = round_terms(member.config, stored.manifest, self.registry)
        state, stage = self.records.state(stored), Stage(item.stage)
        participant: AnyParticipant
        if terms.masked:
            participant = Participant.restore(terms, self._signer, state, group_key=self._group_key(member))
        else:
            participant = PlainParticipant.restore(terms, self._signer, state)
        known = {message.stage: message for message in participant.sent}
        if stage is not Stage.UNMASK and self.records.commitment(stored.ctx) is None:
            self._contribute(member, stored, terms)
        elif item.commitment_due:
            self._commitments.hand_in(stored, again=True)
        if not item.due:
            return
        if stage in known:
            self._send(stored, known[stage])
        elif isinstance(participant, PlainParticipant):
            self._give(member, stored, participant)
        elif stage is Stage.SHARES:
            seed = graph_seed(member.config, self.registry, stored.federation, seen, since=stored.since)
            message = participant.share(self._messages(stored, Stage.KEYS), graph_seed=seed)
            self._send(self.records.keep(stored, participant, "shares"), message)
        elif stage is Stage.MASKED:
            self._mask(member, stored, participant)
        elif stage is Stage.UNMASK:
            self._unmask(stored, participant, seen)

    def _mask(self, member: Membership, stored: StoredAttempt, participant: Participant) -> None:
        check_grant(member.config, self._signer.address, self.registry)
        vector = self.records.vector(member.config, stored.manifest)
        assert vector is not None
        if participant.phase is Phase.SHARES:
            participant.open_shares(self._messages(stored, Stage.SHARES))
        if participant.phase is Phase.OPENED:
            participant.mask(vector)
            statistic = (answered_once(member.config), member.content_root)
            stored = self.records.keep(stored, participant, "masked", statistic=statistic)
        else:
            participant.mask(vector)
        self._hand_in(stored, participant, vector)

    def _give(self, member: Membership, stored: StoredAttempt, participant: PlainParticipant) -> None:
        """Upload the vector without masks, as this site's policy allows by name."""
        check_grant(member.config, self._signer.address, self.registry)
        vector = self.records.vector(member.config, stored.manifest)
        assert vector is not None
        is_new = participant.record().outcome is Outcome.OPEN
        whole, _ = participant.salted(vector)
        if is_new:
            stored = self.records.keep(stored, participant, "sent without masks")
        self._hand_in(stored, participant, whole)

    def _hand_in(self, stored: StoredAttempt, participant: AnyParticipant, vector: RingVector) -> None:
        """Upload what the participant has stored the digest of, and announce it."""
        connection = self._aggregator.leading(stored.federation).connection
        if stored.upload is None:
            key = f"masked-{stored.ctx.hex()}"
            stored = self.records.keep_upload(stored, create_upload(connection, vector.nbytes, idempotency_key=key))
        with TemporaryDirectory(prefix="rexis-masked-") as folder:
            path = Path(folder) / "masked.bin"
            vector.tofile(path)
            step = partial(self._on_step, f"uploading the vector of round {stored.round}")
            upload = upload_file(connection, path, upload_id=stored.upload, progress=step)
        message = participant.announce_masked(upload)
        self._send(self.records.keep(stored, participant, "announced"), message)

    def _unmask(self, stored: StoredAttempt, participant: Participant, seen: RegisteredFederation) -> None:
        fixed = self.registry.fixed_survivors(stored.federation, seen, since=stored.since)
        if participant.phase is Phase.SHARES:
            participant.open_shares(self._messages(stored, Stage.SHARES))
        message = participant.unmask_fixed(self._messages(stored, Stage.MASKED), fixed)
        self._send(self.records.keep(stored, participant, "unmask"), message)

    def _contribute(self, member: Membership, stored: StoredAttempt, terms: RoundTerms) -> None:
        """Compute the round's vector once, commit to it, and hand the commitment in."""
        vector = self.records.vector(member.config, stored.manifest)
        if vector is None:
            step = partial(self._on_step, f"training in round {stored.round}")
            vector = self.rounds.compute(member, stored.manifest, self._holding(member).table, on_step=step)
        self._commitments.keep(stored, terms, vector)
        exposure = round_exposure(self.records.journal, member, stored.round)
        self._report(Event("takes part", stored.subject, {**_detail(stored.manifest), **exposure}))
        self._commitments.hand_in(stored)

    def _group_key(self, member: Membership) -> bytes | None:
        if not member.config.group_pad:
            return None
        key = group_key(self.records.journal, member.federation)
        if key is None:
            raise UnexpectedMessageError("expected a group key in this journal: nothing is sent without its pad")
        return key

    def _holding(self, member: Membership) -> Holding:
        dataset = member.config.dataset(self._signer.address)
        if dataset not in self._holdings:
            raise UnexpectedMessageError(f"this agent does not hold data set {dataset}: name its table in the site's file")
        holding = self._holdings[dataset]
        check_root(dataset, holding.content_root, member.content_root)
        self.policy.check_examples(len(holding.table.rows))
        return holding

    def _messages(self, stored: StoredAttempt, stage: Stage) -> tuple[Envelope, ...]:
        return self._aggregator.messages(stored.federation, stored.round, stored.attempt, stage)

    def _send(self, stored: StoredAttempt, message: Envelope) -> None:
        self._aggregator.send(stored.federation, stored.round, stored.attempt, message)
        self._report(Event(f"sent {message.stage}", stored.subject, _detail(stored.manifest)))

    def _give_up(self, manifest: Manifest, reason: str) -> None:
        stored = self.records.attempt(*_numbers(manifest))
        if stored is not None:
            self.records.drop(stored, reason)
        else:
            ctx = secagg_context(
                self.registry.chain_id, self.registry.address, manifest.federation, manifest.round, manifest.attempt, manifest.digest
            )
            self.records.refuse(manifest, ctx, reason)
        self._report(Event("gave a round up", subject_of(manifest.federation), {**_detail(manifest), "reason": reason}))

    def _membership(self, federation: bytes) -> Membership | None:
        if federation in self._results.left:
            return None
        if federation not in self._memberships:
            found = self.records.membership(federation)
            if found is None:
                return None
            self._memberships[federation] = found
        return self._memberships[federation]

    def _settle(self, running: set[tuple[bytes, int, int]]) -> None:
        """Destroy what attempts that are over left behind; the chain says that they are, or their deadlines long ago."""
        left = [stored for stored in self.records.unended() if (stored.federation, stored.round, stored.attempt) not in running]
        seen = {federation: self.registry.federation(federation) for federation in {stored.federation for stored in left}}
        for federation, now in seen.items():
            self.rounds.settle(federation, now)
            member = self._membership(federation)
            if member is not None:
                self._results.follow(member, now)
        for stored in left:
            now = seen[stored.federation]
            # Of an earlier attempt that says nothing while a later one runs: the round's vector is still needed.
            superseded = now.runs and now.round == stored.round and now.attempt > stored.attempt
            late = time() > stored.manifest.deadlines.abandon + SLACK_S and not superseded
            if not late and now.runs and (now.round, now.attempt) == (stored.round, stored.attempt):
                continue
            round_is_over = late or now.status is Status.CLOSED or now.round != stored.round
            if stored.is_open or round_is_over:
                self.records.end(stored, round_is_over=round_is_over)
            self._commitments.forget(stored.ctx)


def _detail(manifest: Manifest) -> dict[str, int]:
    return {"round": manifest.round, "attempt": manifest.attempt}


def _numbers(manifest: Manifest) -> tuple[bytes, int, int]:
    return manifest.federation, manifest.round, manifest.attempt
