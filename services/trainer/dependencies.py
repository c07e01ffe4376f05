"""What the trainer's routes ask for, loaded and checked before a handler runs."""

import uuid
from typing import Annotated

from fastapi import Depends

from services.foundation.database import SessionDep
from services.foundation.sign_in import CallerDep
from services.trainer import batches
from services.trainer.models import Batch


def _own_batch(session: SessionDep, caller: CallerDep, batch_id: uuid.UUID) -> Batch:
    return batches.own(session, batch_id, caller.address)


OwnBatchDep = Annotated[Batch, Depends(_own_batch)]
