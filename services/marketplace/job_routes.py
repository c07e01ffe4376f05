"""HTTP operations of compute-to-data jobs in escrow. They are read here; every step is a signed call (`POST /v1/relays`)."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from services.foundation.database import SessionDep, now
from services.foundation.sign_in import CallerDep
from services.marketplace import jobs
from services.marketplace.job_schemas import ComputeJobPage, ComputeJobView, JobRole, JobState
from services.marketplace.jobs import Job

MAX_PAGE = 100
JOB_ID = "^0x[0-9a-f]{64}$"

router = APIRouter(prefix="/v1/compute-jobs", tags=["compute jobs"])


def _job(session: SessionDep, caller: CallerDep, job_id: Annotated[str, Path(pattern=JOB_ID)]) -> Job:
    return jobs.of_party(session, job_id, caller.address, now())


JobDep = Annotated[Job, Depends(_job)]


@router.get("")
def list_compute_jobs(
    caller: CallerDep,
    session: SessionDep,
    role: Annotated[JobRole, Query(description="what the caller is to the jobs; owner: of their data sets")],
    state: Annotated[JobState | None, Query()] = None,
    overdue: Annotated[bool, Query(description="only those that wait for anybody to send ComputeJobs.timeout")] = False,
    cursor: Annotated[str | None, Query(pattern=JOB_ID, description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> ComputeJobPage:
    """Jobs, newest first. Open to any account that signed in; each sees those in which it has the role."""
    found = jobs.page(session, caller.address, role=role, state=state, overdue=overdue, after=cursor, limit=limit + 1, instant=now())
    items = [ComputeJobView.of(job) for job in found[:limit]]
    return ComputeJobPage(items=items, next_cursor=items[-1].id if len(found) > limit else None)


@router.get("/{job_id}")
def get_compute_job(job: JobDep) -> ComputeJobView:
    """One job. Open to its consumer, provider and arbiter, and to the data set's owner."""
    return ComputeJobView.of(job)
