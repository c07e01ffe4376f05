"""Rows as the trainer's worker and index write them, for tests that have no chain."""

import hashlib
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from rexis.commitments import Receipt
from rexis.encoding import canonical_json, to_hex
from rexis.protocol.receipt_signature import receipt_message
from services.foundation.database import now
from services.foundation.objects import ObjectStore
from services.trainer.models import Inference, InferenceItem, IssuedReceipt, KeyedModel, RegisteredModel
from tests.services.trainer_on_chain import ISSUER, SPEC

RECORD = "0x" + 64 * "2"


def add_answered_question(session: Session, objects: ObjectStore, owner: str) -> dict[str, str]:
    """An authorised model and one answered question, both of `owner`; their ids."""
    job: dict[str, Any] = {"state": "done", "attempts": 1, "fencing_token": 1, "created_at": now(), "decided_at": now()}
    model = KeyedModel(
        id=uuid.uuid4(),
        owner=owner,
        upload_id=uuid.uuid4().hex,
        total_bytes=1,
        name="Heart",
        description="",
        spec=SPEC.document(),
        spec_digest=to_hex(SPEC.digest()),
        record=RECORD,
        suite="dense",
        mode="infer",
        knowledge="members",
        key_id="0x" + 32 * "8",
        request={},
        signature=b"",
        verdict="accepted",
        **job,
    )
    session.add(model)
    session.add(
        RegisteredModel(
            owner=owner, record=RECORD, state="authorised", spec_digest=model.spec_digest, uri="", transaction_hash=RECORD, block_number=1
        )
    )
    session.flush()
    receipt = Receipt(bytes(32), bytes(32), bytes(32), bytes(16), datetime(2026, 11, 20, 9, 30, tzinfo=UTC), ISSUER.address)
    signed = Receipt(**{**vars(receipt), "signature": ISSUER.sign_typed_data(receipt_message(receipt, 31337))})
    content = canonical_json(signed.to_json())
    session.add(IssuedReceipt(digest=to_hex(signed.digest), issuer=ISSUER.address, owner=owner, content=content))
    content, key = b"output", f"outputs/{uuid.uuid4()}/1"
    objects.put_new(key, content)
    inference = Inference(
        id=uuid.uuid4(),
        requester=owner,
        model_id=model.id,
        upload_id=uuid.uuid4().hex,
        verdict="answered",
        items=1,
        items_done=1,
        output_key=key,
        output_bytes=len(content),
        output_digest=hashlib.sha256(content).digest(),
        output_record=RECORD,
        **job,
    )
    session.add(inference)
    session.flush()
    session.add(InferenceItem(inference_id=inference.id, item=0, digest=to_hex(signed.digest), issuer=ISSUER.address))
    session.flush()
    return {"model": str(model.id), "inference": str(inference.id)}
