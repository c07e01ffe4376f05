"""Celery tasks of the trainer: thin, with identifiers as arguments. Only workers import this module."""

import uuid
from functools import cache

from celery import shared_task
from celery.signals import worker_process_init
from sqlalchemy import Engine

from rexis.chain.connection import Chain, open_web3
from rexis.chain.signer import Signer
from services.foundation.assembly import deployment_of, relayer
from services.foundation.database import open_engine
from services.foundation.objects import ObjectStore, open_store
from services.foundation.observability import configure_logging
from services.trainer import answering, batches, inferences, publications
from services.trainer.settings import TrainerSettings


@worker_process_init.connect
def _log_as_json(**_: object) -> None:
    # A spawned child does not import the module that configures its parent, and structlog's default shows local variables.
    configure_logging(TrainerSettings.from_environment())


@cache
def _opened() -> tuple[Engine, ObjectStore]:
    # Once in each process that runs tasks: connections must not be shared with the parent.
    settings = TrainerSettings.from_environment()
    return open_engine(settings.database_url), open_store(settings.object_store_url)


@cache
def _chain() -> Chain:
    # For its addresses: a worker asks the chain nothing, and works while it is away.
    settings = TrainerSettings.from_environment()
    return Chain(open_web3(settings.chain_rpc_url), deployment_of(settings))


@cache
def _issuer() -> Signer:
    return relayer(TrainerSettings.from_environment())


@shared_task(name=batches.VALIDATION.task, time_limit=3600)
def validate_batch(job_id: str) -> None:
    """Check one uploaded batch."""
    engine, objects = _opened()
    batches.validate(engine, objects, uuid.UUID(job_id))


@shared_task(name=publications.CHECK.task, time_limit=3600)
def check_model(job_id: str) -> None:
    """Check one uploaded model."""
    engine, objects = _opened()
    publications.check(engine, objects, _chain(), uuid.UUID(job_id))


@shared_task(name=inferences.ANSWER.task, time_limit=3600)
def answer_inference(job_id: str) -> None:
    """Answer one question."""
    engine, objects = _opened()
    answering.answer(engine, objects, _issuer(), _chain().deployment.chain_id, uuid.UUID(job_id))
