"""The duty to answer queries: fetch them, check their grant, run them, keep the decision, and only then tell the marketplace."""

from collections.abc import Sequence
from dataclasses import dataclass

from rexis.agent.duty import Event, Report
from rexis.agent.execution.columns import Columns
from rexis.agent.execution.grants import GrantReader, admit
from rexis.agent.execution.ledger import OVER, Asked, DisclosureLedger, Job
from rexis.agent.execution.query_rules import QueryRules
from rexis.agent.execution.tables import answer
from rexis.agent.premises import ServedTable
from rexis.client.queries import Query, QueryClient, QueryOutcome
from rexis.disclosure.populations import KnownPopulations
from rexis.errors import DisclosureError, PolicyError, ServiceError
from rexis.protocol.queries import TableQuery

# As the marketplace takes them.
MAX_RULE_CHARACTERS = 500
# The marketplace will not take this outcome, now or later: another is there, its time is over, or the data set has another owner.
FINAL_REFUSALS = frozenset({403, 404, 409, 422})


@dataclass(frozen=True, eq=False)
class _Open:
    """A data set in memory."""

    served: ServedTable
    columns: Columns
    known: KnownPopulations


class QueryDuty:
    """Answers the queries about this institution's data sets.

    Args:
        tables: the data sets.
        rules: on answers.
        ledger: in this institution's journal.
        client: at the marketplace, signed in as the owner.
        grants: at this institution's chain node.
        report: told each decision.
    """

    name = "queries"

    def __init__(
        self,
        tables: Sequence[ServedTable],
        rules: QueryRules,
        ledger: DisclosureLedger,
        client: QueryClient,
        grants: GrantReader,
        report: Report,
    ) -> None:
        self._rules, self._ledger, self._client, self._grants, self._report = rules, ledger, client, grants, report
        self._open: dict[int, _Open] = {}
        self._skipped: set[str] = set()
        for served in tables:
            held = served.holding
            known = ledger.known_populations(held.content_root, len(held.table.rows), rules.cells.min_cell_size)
            self._open[held.dataset] = _Open(served, Columns(held.table), known)

    def poll(self) -> bool:
        """See `Duty`."""
        untold = self._ledger.untold()
        for job in untold:
            self._tell(job)
        queued = [query for query in self._client.work(self._open) if query.id not in self._skipped]
        for query in queued:
            # One that was decided and is queued still: the marketplace did not get the outcome, or lost it.
            decided = self._ledger.find(query.id) or self._decide(query)
            if decided is not None:
                self._tell(decided)
        return bool(untold or queued)

    def _decide(self, query: Query) -> Job | None:
        """Come to a decision and write it down; None if the data set is not served here."""
        opened = self._open.get(query.dataset)
        if opened is None:
            self._skipped.add(query.id)
            self._report(Event("query left alone", f"query {query.id}", {"rule": f"the site file has no data set {query.dataset}"}))
            return None
        root = opened.served.holding.content_root
        asked = Asked(query.id, query.dataset, root, query.consumer, query.purpose.number, TableQuery.parse(query.document))
        try:
            granted = self._grants.conditions_hash(query.dataset, query.consumer, query.purpose)
            admit(
                opened.served.policy,
                query.conditions,
                granted,
                dataset=query.dataset,
                consumer=query.consumer,
                purpose=query.purpose,
            )
            found = self._ledger.answered(root, asked.query.digest)
            if found is None:
                self._check_budget(root)
                found = answer(asked.query, opened.columns, self._rules, opened.known)
        except (PolicyError, DisclosureError) as error:
            job = self._ledger.keep_refusal(asked, "refused", str(error)[:MAX_RULE_CHARACTERS])
        else:
            job = self._ledger.keep_answer(asked, found, opened.known)
        rule = {} if job.rule is None else {"rule": job.rule}
        self._report(Event(f"query {job.state}", asked.subject, {"dataset": query.dataset, "consumer": query.consumer, **rule}))
        return job

    def _check_budget(self, content_root: bytes) -> None:
        if self._ledger.spent(content_root) >= self._rules.budget:
            raise DisclosureError(f"rule query budget: this data set answers {self._rules.budget} different queries, and no more")

    def _tell(self, job: Job) -> None:
        """Send the decision; the same bytes each time."""
        # A person was faster than this agent: the marketplace takes a decision about a held query only after the hold.
        states = ["held", job.state] if job.reviewed and job.told is None else [job.state]
        for state in states:
            try:
                self._client.put_outcome(job.asked.id, self._outcome(job, state))
            except ServiceError as error:
                if error.status not in FINAL_REFUSALS:
                    raise
                self._skipped.add(job.asked.id)
                self._ledger.mark_told(job, OVER, problem=str(error.problem["type"]))
                self._report(Event("outcome not taken", job.asked.subject, {"problem": str(error)}))
                return
            self._ledger.mark_told(job, state)
        if job.reviewed:
            self._report(Event(f"query {job.state} on review", job.asked.subject, {"dataset": job.asked.dataset}))

    def _outcome(self, job: Job, state: str) -> QueryOutcome:
        if state == "held":
            return QueryOutcome.held()
        if state == "released":
            return QueryOutcome.released(self._ledger.result(job).document())
        if state == "refused":
            return QueryOutcome.refused_on_review() if job.reviewed else QueryOutcome.refused(job.rule or "")
        return QueryOutcome.failed()
