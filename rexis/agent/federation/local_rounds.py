"""A site's computation in the rounds of its federations: which rows, from which state, and what of it is kept here."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from rexis.agent.federation.asked_statistics import AskedStatistics
from rexis.agent.federation.contribution import local_contribution, model_file_spec, prepare_rows, read_model
from rexis.agent.federation.counting import check_table, statistic_vector
from rexis.agent.federation.final_rounds import FinalRounds
from rexis.agent.federation.holdout import hold_back, holdout_key
from rexis.agent.federation.membership import checked_moments, standardisation
from rexis.agent.federation.private_rounds import debit_round
from rexis.agent.federation.recomputed import RecomputedRounds
from rexis.agent.federation.records import FederationRecords, Membership
from rexis.agent.federation.registry import RegisteredFederation, Registry, Status
from rexis.agent.federation.site_policy import SitePolicy
from rexis.agent.federation.site_states import SiteState, SiteStates
from rexis.agent.federation.text_bases import TextBases
from rexis.agent.table import Table
from rexis.client.aggregator import AggregatorClient
from rexis.encoding import sha256
from rexis.errors import ServiceError, UnexpectedMessageError
from rexis.models.features import Features
from rexis.protocol.batch import write_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_plans import TrainingPlan
from rexis.protocol.manifest import Manifest
from rexis.secagg.masks import RingVector
from rexis.secagg.server_steps import read_state
from rexis.training.strategies import State, control_variate

if TYPE_CHECKING:
    from rexis.agent.federation.keyed_updates import UpdateKey

NOT_FOUND = 404


@dataclass(frozen=True, eq=False)
class _Rows:
    trained: Features
    held: Features | None


class LocalRounds:
    """Makes the vectors of one institution's rounds, and keeps what stays at the site.

    Args:
        me: checksum address of the institution.
        policy: of this site.
        bases: encoders that this site has for text classifiers.
    """

    def __init__(
        self,
        records: FederationRecords,
        registry: Registry,
        aggregator: AggregatorClient,
        me: str,
        policy: SitePolicy,
        bases: TextBases | None = None,
    ) -> None:
        self.final = FinalRounds(registry, aggregator)
        self.recomputed = RecomputedRounds(records.journal, registry, aggregator)
        self.states = SiteStates(records.journal)
        self._records, self._registry, self._aggregator = records, registry, aggregator
        self._me, self._policy, self._bases = me, policy, bases or TextBases()
        self._rows: dict[bytes, _Rows] = {}
        self._keys: dict[bytes, UpdateKey] = {}

    def check(self, member: Membership, manifest: Manifest, table: Table) -> None:
        """What must hold before the first message of an attempt.

        Raises:
            PolicyError: fewer rows are left to train on than this site's policy asks for; a statistic that was answered before, or whose
                counts would show too few patients.
            UnexpectedMessageError: training has converged before this round; or there is no key yet that the federation asks for.
                Others as `FinalRounds.metrics`.
            ConfigurationError: the site file names no folder with the base that the model is trained on.
        """
        plan = member.config.statistics
        self._bases.check(member.config)
        if plan is not None:
            AskedStatistics(self._records.journal).claim(member.config, member.content_root, member.federation, self._policy)
            check_table(plan, table)
        elif member.federation not in self._rows:
            self._split(member, table)
        if member.config.protection == "ee":
            self._update_key(member)
        self.final.check_goes_on(member.federation, member.config, manifest.round)

    def compute(
        self,
        member: Membership,
        manifest: Manifest,
        table: Table,
        *,
        on_step: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> RingVector:
        """The round's vector, stored with the state that it leaves here, [length].

        The first one that was stored counts: with noise in it, that of another process is another vector.

        Args:
            on_step: told after each local step how many are done, and of how many.

        Raises:
            PrivacyError: it can not be encoded, or too few rows; what it costs is more than is left of the data set's budget.
            FalseResultError: a round before has another result on chain than follows from its sum.
            RexisError: the aggregator shows something else than stands on chain, or does not answer.
        """
        config, plan = member.config, member.config.training
        if plan is None:
            debit_round(self._records.journal, member, manifest, self._policy)
            self._records.keep_vector(manifest, statistic_vector(config, table))
            return self._kept(config, manifest)
        rows = self._prepared(member, table)
        content, server_state = self._base(member, manifest)
        model = read_model(plan, content, manifest.base_model)
        key = self._update_key(member) if config.protection == "ee" else None
        if key is not None:
            model = key.model(model)
        self._decide(member.federation, before=manifest.round)
        state = self.states.current(member.federation, plan) or SiteState.initial(plan, model)
        control = control_variate(server_state()) if plan.strategy.name == "scaffold" else None
        debit_round(self._records.journal, member, manifest, self._policy)
        made = local_contribution(
            config,
            manifest,
            model,
            rows.trained,
            held=rows.held,
            state=state,
            control=control,
            encoder=self._bases.encoder(config),
            keyed=None if key is None else key.keyed,
            on_step=on_step,
        )
        self._keep(manifest, made.vector, plan, made.state)
        return self._kept(config, manifest)

    def _update_key(self, member: Membership) -> "UpdateKey":
        if member.config.training is None:
            raise ValueError("expected a federation for training, got one for a statistic")
        if member.federation not in self._keys:
            # Loads torch, which founders of statistics and commands that only look need not.
            from rexis.agent.federation.keyed_updates import update_key

            self._keys[member.federation] = update_key(self._records.journal, member.federation, member.config.training)
        return self._keys[member.federation]

    def _base(self, member: Membership, manifest: Manifest) -> tuple[bytes, Callable[[], State]]:
        """File of the model that a round starts from, as this side computes it from the rounds' sums, and the server's state beside it."""
        federation, config = member.federation, member.config
        plan = config.training
        assert plan is not None

        def shown() -> tuple[bytes, Callable[[], State]]:
            return self._aggregator.model(federation), lambda: self.final.server_state(federation, plan, manifest.round - 1)

        if not config.leaves_one_sum:
            return shown()
        try:
            base = self.recomputed.after(federation, config, manifest.round - 1)
        except ServiceError as error:
            # Who took a lead over has no sums of the rounds before; the results of those were recomputed by more than one aggregator.
            if error.status != NOT_FOUND or config.group_pad or config.quorum < 2:
                raise
            return shown()
        return base.model, lambda: read_state(plan, base.state, sha256(base.state))

    def own_model(self, federation: bytes, plan: TrainingPlan, content: bytes, record: bytes) -> bytes:
        """A global model file with this site's personal tensors in the place of the founder's.

        Args:
            content, record: of the global model, compared with the chain.

        Raises:
            UnexpectedMessageError: this journal did not join the federation.
            UnavailableError: the node does not answer, or does not have the events yet.
        """
        if self._records.membership(federation) is None:
            raise UnexpectedMessageError("this institution did not join the federation with this journal: nothing of the model stayed here")
        model, stream = read_model(plan, content, record), BytesIO()
        self._decide(federation, before=self._registry.federation(federation).round)
        state = self.states.current(federation, plan) or SiteState.initial(plan, model)
        write_file(stream, model_file_spec(plan), {**model, **state.personal})
        return stream.getvalue()

    def settle(self, federation: bytes, seen: RegisteredFederation) -> None:
        """Take over the states of rounds that are final, and destroy those of rounds that never will be.

        Raises:
            UnavailableError: the node does not have the events yet.
        """
        self._decide(federation, before=seen.round)
        if seen.status is Status.CLOSED:
            for number in self.states.undecided(federation):
                self.states.decide(federation, number, counts=False)
            self._rows.pop(federation, None)
            self._keys.pop(federation, None)

    def _decide(self, federation: bytes, *, before: int) -> None:
        """Rounds before the one that runs, or runs next, are final; a state of one counts if this site's vector is in its sum."""
        for number in self.states.undecided(federation):
            if number < before:
                self.states.decide(federation, number, counts=self._me in self._registry.survivors(federation, number))

    def _kept(self, config: FederationConfig, manifest: Manifest) -> RingVector:
        vector = self._records.vector(config, manifest)
        assert vector is not None
        return vector

    def _keep(self, manifest: Manifest, vector: RingVector, plan: TrainingPlan, state: SiteState) -> None:
        content = state.to_bytes(plan)
        self._records.keep_vector(
            manifest,
            vector,
            alongside=lambda connection: self.states.keep(connection, manifest.federation, manifest.round, content) if content else None,
        )

    def _prepared(self, member: Membership, table: Table) -> _Rows:
        """This site's rows as the federation's features; the same in every round."""
        if member.federation not in self._rows:
            config = member.config
            statistic = standardisation(self._records, config)
            moments = None if statistic is None else checked_moments(self._records, self._registry, self._aggregator, statistic)
            trained, held = self._split(member, table)
            self._rows[member.federation] = _Rows(
                self._bases.rows(config, prepare_rows(config, trained, moments)),
                None if held is None else self._bases.rows(config, prepare_rows(config, held, moments)),
            )
        return self._rows[member.federation]

    def _split(self, member: Membership, table: Table) -> tuple[Table, Table | None]:
        """The rows to train on, and those that early stopping holds back."""
        plan = member.config.training
        if plan is None or plan.stopping is None:
            return table, None
        trained, held = hold_back(table, plan.stopping.holdout, holdout_key(self._records.journal.sealer, member.content_root))
        self._policy.check_examples(len(trained.rows))
        return trained, held
