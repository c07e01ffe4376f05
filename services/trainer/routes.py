"""HTTP operations of the trainer; uploads come from the foundation."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from rexis.protocol.file_spec import FileSpec
from services.foundation.database import SessionDep
from services.foundation.idempotency import IdempotencyDep
from services.foundation.sign_in import CallerDep
from services.trainer import batches
from services.trainer.dependencies import OwnBatchDep
from services.trainer.schemas import BatchBody, BatchPage, BatchView

MAX_PAGE = 100

router = APIRouter(prefix="/v1/batches", tags=["batches"])


@router.post("", status_code=202)
def hand_in_batch(body: BatchBody, caller: CallerDep, session: SessionDep, idempotency: IdempotencyDep) -> BatchView:
    """Make a complete upload a batch, which a worker checks against its specification.

    Open to any account that signed in, for its own uploads.
    """
    spec = FileSpec.parse(body.spec)
    return idempotency.once(BatchView, lambda: BatchView.of(batches.hand_in(session, caller.address, body.upload_id, spec)))


@router.get("")
def list_batches(
    caller: CallerDep,
    session: SessionDep,
    cursor: Annotated[uuid.UUID | None, Query(description="next_cursor of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> BatchPage:
    """The caller's batches, newest first. Open to any account that signed in."""
    found = batches.of_owner(session, caller.address, after=cursor, limit=limit + 1)
    items = [BatchView.of(batch) for batch in found[:limit]]
    return BatchPage(items=items, next_cursor=str(items[-1].id) if len(found) > limit else None)


@router.get("/{batch_id}")
def get_batch(batch: OwnBatchDep) -> BatchView:
    """A batch: its state, the reason if it was refused, and its record once it is accepted.

    Open to its owner; to others it does not exist.
    """
    return BatchView.of(batch)
