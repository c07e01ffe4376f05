"""A trainer on a real chain: what the tests of models, of inferences and of the commands have in common."""

import io
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from torch import Tensor, nn

from rexis import ee
from rexis.agent.model_files import model_file_spec, rows_file_spec
from rexis.chain.connection import Chain
from rexis.chain.model_registry import REGISTRY
from rexis.chain.signer import LocalSigner
from rexis.client.relayed_calls import sign_call
from rexis.encoding import to_hex
from rexis.models.builders import build
from rexis.models.mlp import MLPConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import FileRecord, write_file
from services.foundation.assembly import chain_jobs
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.objects import ObjectStore, open_store
from services.trainer import answering, publications
from services.trainer.background import PROJECTIONS
from services.trainer.models import Inference, KeyedModel
from services.trainer.settings import TrainerSettings
from tests.services.marketplace_on_chain import RELAYER_KEY
from tests.services.service_applications import authorised, client_of, environment_of, settings_for
from tests.services.test_trainer import upload

ROOT = Path(__file__).parents[2]
SPEC = ModelSpec(MLPConfig(13, (16,), 1, "relu"))
ISSUER = LocalSigner(bytes.fromhex(RELAYER_KEY))


@dataclass(frozen=True)
class Heart:
    """A trained model's stand-in on the owner's premises: plain, its key, and keyed."""

    plain: nn.Sequential
    key: ee.Key
    keyed: nn.Module

    @classmethod
    def of(cls, knowledge: Any = "members", **choices: Any) -> "Heart":
        plain = build(SPEC, seed=7)
        key = ee.keygen(plain, knowledge=knowledge, accept_known_base_risk=knowledge == "public", **choices)
        return cls(plain, key, ee.encrypt_model(plain, key))

    def answers(self, x: Tensor) -> Tensor:
        """What the plain model says, f64."""
        with torch.no_grad():
            return build_copy(self.plain)(x.double())

    def close(self, got: Tensor, x: Tensor) -> bool:
        """Whether outputs are the plain model's, to 1e-5 relative to the largest."""
        expected = self.answers(x)
        return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max())


def build_copy(model: nn.Sequential) -> nn.Sequential:
    """The model in f64."""
    copy = build(SPEC, seed=0, dtype=torch.float64)
    copy.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    return copy


def patients(count: int = 5, *, seed: int = 1) -> Tensor:
    """Standardised rows, f64 [count, 13]."""
    return torch.randn(count, 13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model_bytes(model: nn.Module) -> tuple[bytes, FileRecord]:
    stream = io.BytesIO()
    record = write_file(stream, model_file_spec(SPEC), dict(model.state_dict()))
    return stream.getvalue(), record


def rows_bytes(x: Tensor) -> bytes:
    stream = io.BytesIO()
    write_file(stream, rows_file_spec(SPEC), {"x": x.float()})
    return stream.getvalue()


@dataclass
class Trainer:
    """One trainer, whose worker and background process are run by hand."""

    settings: TrainerSettings
    engine: Engine
    client: TestClient
    chain: Chain
    objects: ObjectStore

    def __post_init__(self) -> None:
        self._chain_jobs = chain_jobs(self.settings, self.engine, PROJECTIONS)

    def mine(self) -> None:
        """One pass of relay and index; twice, because a pass follows before it signs."""
        for job in self._chain_jobs * 2:
            job.run()

    def check_models(self) -> None:
        """What the worker does with every model."""
        with transaction(self.engine, read_only=True) as session:
            waiting = session.scalars(select(KeyedModel.id).where(KeyedModel.state == "queued")).all()
        for model_id in waiting:
            publications.check(self.engine, self.objects, self.chain, model_id)

    def answer(self, inference_id: str) -> None:
        """What the worker does with a question."""
        answering.answer(self.engine, self.objects, ISSUER, self.settings.chain_id, uuid.UUID(inference_id))

    def call(self, method: str, path: str, account: LocalSigner, body: Any = None, **query: Any) -> Any:
        return self.client.request(method, path, json=body, params=query, headers=authorised(self.settings, account))

    def get(self, path: str, account: LocalSigner, **query: Any) -> Any:
        answer = self.call("GET", path, account, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def upload(self, account: LocalSigner, content: bytes) -> str:
        self.client.headers.update(authorised(self.settings, account))
        try:
            return upload(self.client, content)
        finally:
            del self.client.headers["Authorization"]

    def body(self, owner: LocalSigner, heart: Heart, **changes: Any) -> dict[str, Any]:
        """A right request to publish; `changes` replace members, `content` and `arguments` what is uploaded and signed."""
        content, record = model_bytes(heart.keyed)
        content = changes.pop("content", content)
        uri = f"{self.settings.public_url}/v1/descriptions/{owner.address}/{to_hex(record.record)}"
        arguments = changes.pop("arguments", (record.record, SPEC.digest(), uri))
        signed = sign_call(owner, self.chain.deployment, REGISTRY, "authorise", *arguments, gas=300_000)
        ee_label = {"suite": heart.key.suite, "mode": heart.key.mode, "knowledge": heart.key.knowledge, "key_id": heart.key.id}
        body = {
            "upload_id": self.upload(owner, content),
            "model_spec": SPEC.document(),
            "ee": ee_label,
            "name": "Heart disease, keyed",
            "description": "Thirteen standardised attributes.",
            **signed.to_json(),
        }
        return {**body, **changes}

    def publish(self, owner: LocalSigner, heart: Heart, **changes: Any) -> dict[str, Any]:
        """A model that is on chain."""
        answer = self.call("POST", "/v1/models", owner, self.body(owner, heart, **changes))
        assert answer.status_code == 202, answer.text
        self.check_models()
        self.mine()
        found: dict[str, Any] = self.get(f"/v1/models/{answer.json()['id']}", owner)
        return found

    def revoke(self, owner: LocalSigner, record: str) -> None:
        """Take a model back on chain."""
        signed = sign_call(owner, self.chain.deployment, REGISTRY, "revoke", bytes.fromhex(record[2:]), 3)
        answer = self.call("POST", "/v1/relays", owner, signed.to_json())
        assert answer.status_code == 202, answer.text
        self.mine()

    def ask(self, account: LocalSigner, model_id: str, content: bytes) -> Any:
        """Hand in a question; the answer of the API, whatever it is."""
        return self.call("POST", "/v1/inferences", account, {"model": model_id, "upload_id": self.upload(account, content)})

    def row(self, inference_id: str) -> Inference:
        with transaction(self.engine, read_only=True) as session:
            return session.get_one(Inference, uuid.UUID(inference_id))


def trainer_settings(database_url: str, rpc_url: str, folder: Path, **changes: Any) -> TrainerSettings:
    given = {"chain_rpc_url": rpc_url, "object_store_url": f"file://{folder / 'objects'}", "relayer_key": RELAYER_KEY, **changes}
    settings = settings_for("trainer", database_url, **given)
    assert isinstance(settings, TrainerSettings)
    engine = open_engine(database_url)
    migrate(engine, "services.trainer")
    engine.dispose()
    return settings


@contextmanager
def trainer_of(settings: TrainerSettings, chain: Chain) -> Iterator[Trainer]:
    """The trainer of these settings, on a migrated database."""
    engine = open_engine(settings.database_url)
    with client_of(settings) as client:
        yield Trainer(settings, engine, client, chain, open_store(settings.object_store_url))
    engine.dispose()


@contextmanager
def worker_process(settings: TrainerSettings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker in a process group of its own, until it is killed or the block ends."""
    command = [sys.executable, "-m", "celery", "-A", "services.trainer.worker:celery", "worker", "--without-gossip", "--without-mingle"]
    with _process(command, settings, log) as process:
        yield process


@contextmanager
def trainer_processes(settings: TrainerSettings, folder: Path) -> Iterator[None]:
    """Worker and background process."""
    with ExitStack() as stack:
        stack.enter_context(worker_process(settings, folder / "worker.log"))
        stack.enter_context(_process([sys.executable, "-m", "services.trainer.background"], settings, folder / "background.log"))
        yield


@contextmanager
def _process(command: list[str], settings: TrainerSettings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment_of(settings), stdout=file, stderr=file, start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def eventually(found: Any, *, timeout_s: float = 60.0) -> None:
    """Wait until `found()` is true."""
    deadline = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
