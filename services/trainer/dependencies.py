"""What the trainer's routes ask for, loaded and checked before a handler runs."""

import uuid
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy import Engine

from rexis.encoding import checksum_address
from rexis.errors import EncodingError
from services.foundation.database import SessionDep
from services.foundation.objects import ObjectStore
from services.foundation.problems import not_found
from services.foundation.sign_in import CallerDep
from services.trainer import batches, inferences, publications
from services.trainer.models import Batch, Inference, KeyedModel
from services.trainer.schemas import Hex32
from services.trainer.settings import TrainerSettings


def _settings(request: Request) -> TrainerSettings:
    settings: TrainerSettings = request.app.state.settings
    return settings


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _objects(request: Request) -> ObjectStore:
    objects: ObjectStore = request.app.state.objects
    return objects


def _own_batch(session: SessionDep, caller: CallerDep, batch_id: uuid.UUID) -> Batch:
    return batches.own(session, batch_id, caller.address)


def _usable_model(session: SessionDep, caller: CallerDep, model_id: uuid.UUID) -> KeyedModel:
    return publications.readable(session, model_id, caller.address)


def _own_model(model: Annotated[KeyedModel, Depends(_usable_model)], caller: CallerDep) -> KeyedModel:
    if model.owner != caller.address:
        raise not_found("model of yours", model.id)
    return model


def _described_model(
    session: SessionDep, owner: Annotated[str, Path(max_length=42)], record: Annotated[Hex32, Path(description="model record")]
) -> KeyedModel:
    try:
        return publications.described(session, checksum_address(owner), record)
    except EncodingError:
        raise not_found("model", record) from None


def _own_inference(session: SessionDep, caller: CallerDep, inference_id: uuid.UUID) -> Inference:
    return inferences.own(session, inference_id, caller.address)


SettingsDep = Annotated[TrainerSettings, Depends(_settings)]
EngineDep = Annotated[Engine, Depends(_engine)]
ObjectsDep = Annotated[ObjectStore, Depends(_objects)]
OwnBatchDep = Annotated[Batch, Depends(_own_batch)]
UsableModelDep = Annotated[KeyedModel, Depends(_usable_model)]
OwnModelDep = Annotated[KeyedModel, Depends(_own_model)]
DescribedModelDep = Annotated[KeyedModel, Depends(_described_model)]
OwnInferenceDep = Annotated[Inference, Depends(_own_inference)]
