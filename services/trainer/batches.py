"""Encrypted batches: uploaded, then checked by a worker before anything computes on them.

The check reads the file once, as a stream: header against the agreed specification before any byte of data, every value finite, every
tensor's digest, and the record that receipts and certificates name (wire formats, sections 1 and 4).
"""

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, select, tuple_
from sqlalchemy.orm import Session

from rexis.encoding import to_hex
from rexis.errors import EncodingError, MalformedMessageError
from rexis.protocol.batch import READ_BYTES, FileRecord, TensorFileDigest
from rexis.protocol.file_spec import FileSpec
from services.foundation.database import now, transaction
from services.foundation.objects import ObjectStore
from services.foundation.outbox.leases import JobKind, Lease, claim, enqueue_job
from services.foundation.problems import Problem, conflict, not_found
from services.foundation.uploads import StoredUpload, claim_upload, open_upload
from services.trainer.models import Batch

# By name: publishing a task does not import it.
TASKS_MODULE = "services.trainer.tasks"
VALIDATION = JobKind(model=Batch, task="trainer.validate_batch", queue="trainer", lease_s=30.0)


def hand_in(session: Session, owner: str, upload_id: str, spec: FileSpec) -> Batch:
    """Make a complete upload a batch and queue its check; the same upload with the same specification twice is one batch.

    Raises:
        Problem: 404 if the owner has no such upload, 409 if it is not complete, or a batch of another specification.
    """
    upload = claim_upload(session, upload_id, owner)
    known = session.scalar(select(Batch).where(Batch.upload_id == upload_id))
    if known is not None:
        if known.spec_digest != to_hex(spec.digest):
            raise conflict("upload-used", f"upload {upload_id} was handed in as batch {known.id} with another specification")
        return known
    batch = Batch(
        id=uuid.uuid4(),
        owner=owner,
        upload_id=upload_id,
        total_bytes=upload.total_bytes,
        spec=spec.document(),
        spec_digest=to_hex(spec.digest),
        created_at=now(),
    )
    enqueue_job(session, VALIDATION, batch)
    return batch


def validate(engine: Engine, objects: ObjectStore, batch_id: uuid.UUID) -> None:
    """Check one batch and write the verdict; does nothing if another run is at it, or it has a verdict."""
    lease = claim(engine, VALIDATION, batch_id)
    if lease is None:
        return
    with lease:
        with transaction(engine, read_only=True) as session:
            batch = session.get_one(Batch, batch_id)
            upload = open_upload(session, batch.upload_id, batch.owner)
        try:
            found = _read(lease, upload, objects, FileSpec.parse(batch.spec))
        except (MalformedMessageError, EncodingError) as error:
            with lease.finish() as (_, job):
                job.verdict, job.reason, job.decided_at = "refused", str(error), now()
            return
        with lease.finish() as (_, job):
            job.verdict, job.decided_at = "accepted", now()
            job.record, job.tensors = to_hex(found.record), _tensors(found)


def of_owner(session: Session, owner: str, *, after: uuid.UUID | None, limit: int) -> Sequence[Batch]:
    """The owner's batches, newest first, starting behind the batch `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    query = select(Batch).where(Batch.owner == owner).order_by(Batch.created_at.desc(), Batch.id.desc()).limit(limit)
    if after is not None:
        last = session.get(Batch, after)
        if last is None or last.owner != owner:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(Batch.created_at, Batch.id) < (last.created_at, last.id))
    return session.scalars(query).all()


def own(session: Session, batch_id: uuid.UUID, owner: str) -> Batch:
    """One batch, for its owner.

    Raises:
        Problem: 404.
    """
    batch = session.get(Batch, batch_id)
    if batch is None or batch.owner != owner:
        raise not_found("batch", batch_id)
    return batch


def _read(lease: Lease[Batch], upload: StoredUpload, objects: ObjectStore, spec: FileSpec) -> FileRecord:
    digest = TensorFileDigest(spec, upload.total_bytes)
    with upload.open(objects) as content:
        while piece := content.read(READ_BYTES):
            lease.check()
            digest.update(piece)
    return digest.finish()


def _tensors(found: FileRecord) -> list[dict[str, Any]]:
    return [
        {"name": entry.name, "dtype": entry.dtype, "shape": list(entry.shape), "digest": to_hex(found.digests[entry.name])}
        for entry in found.header.tensors
    ]
