"""Questions to keyed models: who may ask, and what became of a question. The answer is made by a worker (`services.trainer.answering`).

Rows come in encrypted and leave encrypted; the trainer has no key. Under a model whose plain weights others hold, that is obfuscation
only (`rexis.models.knowledge`).
"""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Engine, select, tuple_
from sqlalchemy.orm import Session

from rexis.models.spec import ModelSpec
from rexis.protocol.file_spec import FileSpec, TensorSpec
from services.foundation.database import now, transaction
from services.foundation.objects import ObjectStore
from services.foundation.outbox.leases import JobKind, enqueue_job
from services.foundation.problems import Problem, conflict, not_found
from services.foundation.uploads import claim_upload
from services.trainer.models import Inference, KeyedModel
from services.trainer.publications import require_authorised

ANSWER = JobKind(model=Inference, task="trainer.answer_inference", queue="trainer", lease_s=30.0)
MAX_ITEMS = 10_000
# Inputs, and outputs, of one question: both are in a worker's memory.
MAX_BATCH_BYTES = 64 << 20
# Longer than a task may last: afterwards no lost run writes outputs any more.
LONGEST_RUN = timedelta(hours=2)
SWEPT_AT_ONCE = 100


def batch_spec(spec: ModelSpec) -> FileSpec:
    """What a file of rows must contain."""
    return FileSpec("batch", (TensorSpec("x", "f32", ("n", spec.tabular.inputs)),))


def output_spec(spec: ModelSpec) -> FileSpec:
    """What the file of answers contains."""
    return FileSpec("output", (TensorSpec("y", "f32", ("n", spec.tabular.outputs)),))


def hand_in(session: Session, requester: str, model: KeyedModel, upload_id: str) -> Inference:
    """Make a complete upload a question to a model; the same upload twice is one question.

    Raises:
        Problem: 404 if the requester has no such upload; 409 if it is not complete or was used with another model, if the model is not
            authorised on chain (any more), or was keyed for training; 422 if it is too large.
    """
    upload = claim_upload(session, upload_id, requester)
    known = session.scalar(select(Inference).where(Inference.upload_id == upload_id))
    if known is not None:
        if known.model_id != model.id:
            raise conflict("upload-used", f"upload {upload_id} was handed in as inference {known.id} with another model")
        return known
    if model.mode != "infer":
        raise conflict("model-mode", f"model {model.id} is keyed for mode {model.mode}; questions need one keyed for infer")
    require_authorised(session, model)
    if upload.total_bytes > MAX_BATCH_BYTES:
        detail = f"at most {MAX_BATCH_BYTES} bytes are accepted as a question, got {upload.total_bytes}: split it"
        raise Problem(422, "batch-too-large", "The batch is too large", detail)
    inference = Inference(id=uuid.uuid4(), requester=requester, model_id=model.id, upload_id=upload_id, created_at=now())
    enqueue_job(session, ANSWER, inference)
    return inference


def own(session: Session, inference_id: uuid.UUID, requester: str) -> Inference:
    """One question, for whoever asked it.

    Raises:
        Problem: 404.
    """
    inference = session.get(Inference, inference_id)
    if inference is None or inference.requester != requester:
        raise not_found("inference", inference_id)
    return inference


def page(session: Session, requester: str, *, after: uuid.UUID | None, limit: int) -> Sequence[Inference]:
    """An account's questions, newest first, starting behind the question `after`.

    Raises:
        Problem: 422 if `after` is not one of them.
    """
    query = select(Inference).where(Inference.requester == requester)
    if after is not None:
        last = session.get(Inference, after)
        if last is None or last.requester != requester:
            raise Problem(422, "cursor", "Unknown cursor", "cursor: pass back next_cursor of the previous page, or leave it out")
        query = query.where(tuple_(Inference.created_at, Inference.id) < (last.created_at, last.id))
    return session.scalars(query.order_by(Inference.created_at.desc(), Inference.id.desc()).limit(limit)).all()


def require_answered(inference: Inference) -> None:
    """Return if there is an answer.

    Raises:
        Problem: 409: not yet, or there will be none.
    """
    if inference.verdict != "answered":
        state = inference.verdict or inference.state
        raise conflict("no-answer", f"inference {inference.id} is {state}; there is an answer once it is answered")


def output_folder(inference_id: uuid.UUID) -> str:
    """Prefix of the object keys of all runs of a question."""
    return f"outputs/{inference_id}"


def sweep_outputs(engine: Engine, objects: ObjectStore) -> None:
    """Background job: delete what lost runs left in the object store beside the answer. Interrupted, it does the rest the next time."""
    ended = Inference.state.in_(("done", "failed")), Inference.queued_at < now() - LONGEST_RUN
    with transaction(engine, read_only=True) as session:
        found = session.scalars(select(Inference).where(*ended, Inference.swept.is_(False)).limit(SWEPT_AT_ONCE)).all()
    for inference in found:
        for stored in list(objects.list(output_folder(inference.id))):
            if stored.key != inference.output_key:
                objects.delete(stored.key)
        with transaction(engine) as session:
            session.get_one(Inference, inference.id).swept = True
