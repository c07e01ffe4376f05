"""Compute-to-data jobs in escrow, as the events of ComputeJobs tell them.

    requested → accepted → committed → released                  committed → disputed → resolved
    requested, accepted, disputed → refunded

Only the chain moves a job on; a deadline that passes does not, until somebody sends `timeout`. So a job that waits for that is overdue, and
whoever reads it learns it from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, tuple_
from sqlalchemy.orm import Session

from rexis.encoding import checksum_address, to_hex
from services.foundation.chain_index import IndexedEvent
from services.foundation.problems import Problem, not_found
from services.marketplace.models import CatalogueEntry, ComputeJob

COMPUTE_JOBS = "ComputeJobs"
# How a refund came about, in the order of the contract's enumeration `Refund`; the last three by time.
REFUNDS = ("cancelled", "declined", "abandoned", "not-accepted", "not-committed", "not-resolved")
OPEN = ("requested", "accepted", "committed", "disputed")
PARTIES = ("consumer", "provider", "arbiter")
NOTHING = bytes(32)


@dataclass(frozen=True)
class Job:
    """A job with the present owner of its data set, and whether it waits for anybody to end it."""

    row: ComputeJob
    owner: str
    overdue: bool


class JobProjection:
    """Writes `compute_job` from events, and from nothing else."""

    contract = COMPUTE_JOBS
    tables = (ComputeJob,)

    def apply(self, session: Session, event: IndexedEvent) -> None:
        """Take one event into account; events come in the order of the chain."""
        given: Mapping[str, Any] = event.arguments
        if event.name == "JobRequested":
            session.add(_requested(event))
            session.flush()
            return
        if "job" not in given:
            return
        job = session.get_one(ComputeJob, to_hex(given["job"]))
        match event.name:
            case "JobFunded":
                job.token, job.price, job.deadline = checksum_address(given["token"]), str(given["price"]), given["acceptUntil"]
                job.run_seconds, job.review_seconds = given["runSeconds"], given["reviewSeconds"]
            case "JobAccepted":
                job.state, job.deadline = "accepted", given["deadline"]
            case "ResultCommitted":
                job.state, job.deadline, job.result = "committed", given["deadline"], to_hex(given["result"])
                job.logs, job.meter = _digest(given["logs"]), _digest(given["meter"])
            case "JobDisputed":
                job.state, job.deadline, job.dispute_reason = "disputed", given["deadline"], to_hex(given["reason"])
            case "JobReleased":
                _end(job, "released", "timeout" if given["byTimeout"] else "consumer", given)
            case "JobResolved":
                _end(job, "resolved", "arbiter", given)
            case "JobRefunded":
                _end(job, "refunded", REFUNDS[given["reason"]], given)
        session.flush()

    def reset(self, session: Session) -> None:
        """Forget everything, before the events are applied anew."""
        session.execute(delete(ComputeJob))


def of_party(session: Session, job_id: str, caller: str, instant: datetime) -> Job:
    """A job, for its consumer, provider and arbiter, and for the owner of the data set.

    Raises:
        Problem: 404.
    """
    party = or_(*(_is(role, caller) for role in (*PARTIES, "owner")))
    row = session.execute(_jobs().where(ComputeJob.id == job_id, party)).one_or_none()
    if row is None:
        raise not_found("compute job", job_id)
    return _job(row, instant)


def page(
    session: Session, caller: str, *, role: str, state: str | None, overdue: bool, after: str | None, limit: int, instant: datetime
) -> Sequence[Job]:
    """Jobs in which an account has a role, newest first, starting behind the job `after`.

    Args:
        role: consumer, provider, arbiter, or owner of the data set.
        overdue: only those whose deadline has passed without anybody ending them.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    mine = _is(role, caller)
    query = _jobs().where(mine).order_by(ComputeJob.block_number.desc(), ComputeJob.id.desc()).limit(limit)
    if state is not None:
        query = query.where(ComputeJob.state == state)
    if overdue:
        query = query.where(ComputeJob.state.in_(OPEN), ComputeJob.deadline < int(instant.timestamp()))
    if after is not None:
        last = session.execute(_jobs().where(mine, ComputeJob.id == after)).one_or_none()
        if last is None:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(ComputeJob.block_number, ComputeJob.id) < (last[0].block_number, last[0].id))
    return [_job(row, instant) for row in session.execute(query)]


def _requested(event: IndexedEvent) -> ComputeJob:
    """A job as its first event tells it; that of its money follows in the same transaction."""
    given: Mapping[str, Any] = event.arguments
    parties = {role: checksum_address(given[role]) for role in PARTIES}
    return ComputeJob(
        id=to_hex(given["job"]),
        dataset=given["dataset"],
        purpose=given["purpose"],
        algorithm=to_hex(given["algorithm"]),
        document=to_hex(given["document"]),
        token="",
        price="0",
        run_seconds=0,
        review_seconds=0,
        state="requested",
        block_number=event.block_number,
        transaction_hash=event.transaction_hash,
        **parties,
    )


def _end(job: ComputeJob, state: str, ended_by: str, given: Mapping[str, Any]) -> None:
    job.state, job.ended_by, job.deadline = state, ended_by, None
    job.paid, job.royalty, job.refunded = (str(given.get(part, 0)) for part in ("paid", "royalty", "refunded"))


def _digest(value: bytes) -> str | None:
    return to_hex(value) if value != NOTHING else None


def _is(role: str, account: str) -> ColumnElement[bool]:
    return CatalogueEntry.owner == account if role == "owner" else getattr(ComputeJob, role) == account


def _jobs() -> Any:
    return select(ComputeJob, CatalogueEntry.owner).join(CatalogueEntry, CatalogueEntry.token_id == ComputeJob.dataset)


def _job(found: Any, instant: datetime) -> Job:
    row, owner = found
    return Job(row, owner, row.deadline is not None and row.deadline < int(instant.timestamp()))
