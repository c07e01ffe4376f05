"""Whole federations: institutions with their own keys and the real secure-aggregation participant, an aggregator's API and its background
process, and a chain. An institution here trains nothing: its update is a pull towards a point of its own, so that the mean is known.
"""

import io
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rexis.agent.federation.admission import graph_seed
from rexis.agent.federation.registry import Registry
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.client.aggregator import AggregatorClient, Federation, WorkItem
from rexis.client.connection import Connection
from rexis.client.relayed_calls import RelayClient, sign_call
from rexis.client.uploads import upload_file
from rexis.encoding import to_hex
from rexis.errors import ServiceError, UnavailableError, UnexpectedMessageError
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec
from rexis.protocol.batch import read_file, write_file
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.federation_rounds import update_commitment
from rexis.protocol.file_spec import FileSpec
from rexis.protocol.secagg_messages import Stage
from rexis.secagg import Participant
from rexis.secagg.history import AttemptRecord
from rexis.secagg.payloads import Holdout, encode_update, vector_record
from rexis.secagg.statistics.moments import encode_moments
from rexis.secagg.survivors import FixedSurvivors
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds
from services.foundation.database import migrate, open_engine
from services.foundation.settings import ServiceSettings
from tests.services.conftest import free_port
from tests.services.marketplace_on_chain import RELAYER_KEY
from tests.services.service_applications import connected, environment_of, settings_for

ROOT = Path(__file__).parents[2]
AGGREGATOR = LocalSigner(bytes.fromhex(RELAYER_KEY))
FEATURES = {
    "version": 1,
    "inputs": [{"column": "age", "kind": "number"}, {"column": "sex", "kind": "levels", "levels": ["Male"]}],
    "target": {"column": "num", "above": "0"},
}
SPEC = ModelSpec(LogisticConfig(inputs=2))
FILE = FileSpec.of_model("model", SPEC.digest(), SPEC.shapes, "f32")
EXAMPLES = (130, 80, 45, 200)
# By number modulo four, where there are more institutions.
POINTS = tuple(np.random.default_rng(number).normal(size=3) for number in range(4))
TABLES = tuple(np.random.default_rng(number).normal(50, 10, size=(EXAMPLES[number], 2)) for number in range(4))
TRAINING = {
    "model": SPEC.document(),
    "rounds": 2,
    "steps": 1,
    "learning_rate": "0.5",
    "batch_size": None,
    "proximal": "0",
    "clipping_norm": "10",
    "weight_cap": 150,
    "weight_band": 25,
    "standardisation": None,
}

# Pause between two looks at everything. A pass asks each institution's work and each federation: shorter pauses cost more than they save.
LOOK_S = 0.2

# (institution, name of the federation, round, attempt, stage) → whether it keeps silent there.
Silence = Callable[[int, str, int, int, str], bool]


def config_of(members: Sequence[LocalSigner], founder: LocalSigner, name: str, /, **changes: Any) -> FederationConfig:
    """A federation of four under t_c = 1, t = 3; statistics if `training` is None."""
    training = changes.pop("training", TRAINING)
    document: dict[str, Any] = {
        "version": 1,
        "name": name,
        "kind": "statistics" if training is None else "training",
        "founder": founder.address,
        "members": [{"address": member.address, "dataset": number} for number, member in enumerate(members, start=1)],
        "aggregators": [AGGREGATOR.address],
        "quorum": 1,
        "collusion_bound": 1,
        "threshold": 3,
        "min_survivors": 3,
        "purpose": 6,
        "features": FEATURES,
        "stage_s": 60,
        "training": training,
        "statistics": {"identifier": "moments", "scale_bits": 16} if training is None else None,
    }
    return FederationConfig.parse(document | changes)


def founding_of(config: FederationConfig, model: bytes, /, **changes: Any) -> dict[str, Any]:
    """The argument of `FederationRegistry.create` that stands for a config."""
    return {
        "configHash": config.digest,
        "model": model,
        "minSurvivors": config.min_survivors,
        "quorum": config.quorum,
        "participants": list(config.roster),
        "aggregators": list(config.aggregators),
        **changes,
    }


def initial_file(folder: Path, weights: Any = (0.5, -1.0, 2.0)) -> tuple[Path, bytes]:
    """A model file and its record; `weights` as a vector in order of the shapes: the weight [1, 2], then the bias [1]."""
    vector = np.array(weights, dtype=np.float32)
    path = folder / f"{secrets.token_hex(8)}.safetensors"
    with path.open("wb") as stream:
        record = write_file(stream, FILE, {"0.weight": vector[:2].reshape(1, 2), "0.bias": vector[2:]}).record
    return path, record


def weights_in(content: bytes) -> Any:
    tensors = read_file(io.BytesIO(content), FILE, len(content))
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in SPEC.shapes])


def mean_pull(base: Any, survivors: Sequence[int], pull: float = 0.5) -> Any:
    """What a round makes of `base`: the weighted mean of the survivors' pulls, weights banded by 25 and capped at 150."""
    weights = np.array([min(150, 25 * -(-EXAMPLES[number % 4] // 25)) for number in survivors], dtype=np.float64)
    deltas = np.array([pull * (POINTS[number % 4] - base) for number in survivors])
    return base + (weights[:, None] * deltas).sum(axis=0) / weights.sum()


def pull_vector(config: FederationConfig, base: Any, number: int) -> Any:
    """What institution `number` masks in a round from `base`; all hold back a fifth of their rows, and their loss never changes."""
    assert config.training is not None
    point, examples = POINTS[number % 4], EXAMPLES[number % 4]
    holdout = None if config.training.stopping is None else Holdout(examples // 5, 0.375)
    return encode_update(config, 0.5 * (point - base), examples=examples, loss=0.25, holdout=holdout)


@dataclass
class Institution:
    """One member: does what is due, unless it is silent."""

    number: int
    signer: LocalSigner
    connection: Connection
    chain: Chain
    folder: Path
    silence: Silence = lambda *_: False
    participants: dict[tuple[bytes, int, int], Participant] = field(default_factory=dict)
    configs: dict[bytes, FederationConfig] = field(default_factory=dict)
    promised: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.client, self.relays = AggregatorClient(self.connection), RelayClient(self.connection)

    def act(self) -> None:
        for item in self.client.work():
            if item.stage in set(Stage):
                self._take_part(item)

    def _take_part(self, item: WorkItem) -> None:
        if item.federation not in self.configs:
            self.configs[item.federation] = self.client.federation(item.federation).config
        config = self.configs[item.federation]
        if self.silence(self.number, config.name, item.round, item.attempt, item.stage) or not (item.due or self._must_commit(item)):
            return
        key = (item.federation, item.round, item.attempt)
        if key not in self.participants:
            self.participants[key] = self._join(item, config)
        participant = self.participants[key]
        try:
            if item.due:
                message = self._message(item, participant, config)
                self.client.send(*key, message)
            if item.stage == "masked" and not self.silence(self.number, config.name, item.round, item.attempt, "commitment"):
                self._commit(participant, config, item)
        except ServiceError as error:
            # It was slow, and the stage was closed meanwhile.
            if not error.problem["type"].endswith(("stage-closed", "attempt-over")):
                raise
        except UnexpectedMessageError:
            # Its group lost another one, so that nothing of it is opened.
            if config.groups is None or item.stage != "unmask":
                raise
            participant.drop_out()

    def _must_commit(self, item: WorkItem) -> bool:
        return item.stage == "masked" and item.commitment_due and (item.federation, item.round, item.attempt) in self.participants

    def _join(self, item: WorkItem, config: FederationConfig) -> Participant:
        item.manifest.check(config, federation=item.federation, base_model=item.manifest.base_model)
        registry = self.chain.deployment.contracts["FederationRegistry"].address
        state = self.chain.contract("FederationRegistry").functions.get(item.federation).call()
        assert item.manifest.digest in state, "the chain has another manifest"
        terms = RoundTerms(
            chain_id=self.chain.deployment.chain_id,
            registry=registry,
            federation=item.federation,
            round=item.round,
            attempt=item.attempt,
            manifest_hash=item.manifest.digest,
            base_model=item.manifest.base_model,
            roster=config.roster,
            thresholds=Thresholds(len(config.members), config.collusion_bound, config.threshold, config.min_survivors),
            length=config.length,
            ring_bits=config.ring_bits,
            groups=config.groups,
            degree=config.degree,
        )
        return Participant(terms, self.signer, earlier=self._earlier(item))

    def _earlier(self, item: WorkItem) -> list[AttemptRecord]:
        earlier = [participant for (federation, _, _), participant in self.participants.items() if federation == item.federation]
        for participant in earlier:
            if Stage.UNMASK not in {message.stage for message in participant.sent}:
                participant.drop_out()
        return [participant.record() for participant in earlier]

    def _message(self, item: WorkItem, participant: Participant, config: FederationConfig) -> Any:
        where = (item.federation, item.round, item.attempt)
        match item.stage:
            case "keys":
                return participant.announce_keys()
            case "shares":
                return participant.share(self.client.messages(*where, Stage.KEYS), graph_seed=self._seed(config, item))
            case "masked":
                participant.open_shares(self.client.messages(*where, Stage.SHARES))
                if participant.sent[-1].stage is Stage.MASKED:
                    return participant.sent[-1]
                vector = self._vector(config, item)
                participant.mask(vector)
                path = self.folder / secrets.token_hex(8)
                path.write_bytes(vector.tobytes())
                return participant.announce_masked(upload_file(self.connection, path))
            case "survivors":
                return participant.consent(self.client.messages(*where, Stage.MASKED))
            case _:
                signed = self.client.messages(*where, Stage.SURVIVORS)
                if len(signed) >= config.threshold:
                    return participant.unmask(signed)
                return participant.unmask_fixed(self.client.messages(*where, Stage.MASKED), self._fixed(participant.terms))

    def _seed(self, config: FederationConfig, item: WorkItem) -> bytes:
        registry = Registry(self.chain)
        seen = registry.federation(item.federation)
        return graph_seed(config, registry, item.federation, seen, since=registry.block_number())

    def _vector(self, config: FederationConfig, item: WorkItem) -> Any:
        if config.training is None:
            return encode_moments(config, TABLES[self.number])
        base = weights_in(self.client.model(item.federation))
        return pull_vector(config, base, self.number)

    def _commit(self, participant: Participant, config: FederationConfig, item: WorkItem) -> None:
        ctx = participant.terms.ctx
        if ctx in self.promised:
            return
        digest = vector_record(self._vector(config, item))
        commitment = update_commitment(ctx, self.signer.address, digest, secrets.token_bytes(16))
        call = sign_call(self.signer, self.chain.deployment, "FederationRegistry", "commitUpdate", item.federation, ctx, commitment)
        self.relays.hand_in(call)
        self.promised.add(ctx)

    def _fixed(self, terms: RoundTerms) -> FixedSurvivors:
        event = self.chain.contract("FederationRegistry").events.SurvivorsFixed()
        logs = event.get_logs(from_block=0, argument_filters={"federation": terms.federation})
        found = next(log["args"] for log in logs if log["args"]["ctx"] == terms.ctx)
        return FixedSurvivors(found["survivorsHash"], found["maskedRecord"])


@dataclass
class Gathering:
    """Four institutions, a founder who is none of them, a stranger, and their aggregator."""

    settings: ServiceSettings
    chain: Chain
    folder: Path
    founder: AggregatorClient
    founder_signer: LocalSigner
    stranger: AggregatorClient
    institutions: list[Institution]

    @property
    def members(self) -> list[LocalSigner]:
        return [institution.signer for institution in self.institutions]

    def found(self, name: str, **changes: Any) -> bytes:
        """Found a federation that everybody joins; its id."""
        config = config_of(self.members, self.founder_signer, name, **changes)
        upload, record = None, b""
        if config.training is not None:
            path, record = initial_file(self.folder)
            upload = upload_file(self.founder.connection, path)
        else:
            record = config.statistic_digest
        call = sign_call(
            self.founder_signer, self.chain.deployment, "FederationRegistry", "create", founding_of(config, record), gas=1_500_000
        )
        federation = self.founder.found(config, call, initial_model=upload)
        for institution in self.institutions:
            institution.client.join(federation.id)
        return federation.id

    def play(self, *federations: bytes, until_s: float = 140.0, then: Callable[[], None] = lambda: None) -> dict[bytes, Federation]:
        """Let everybody act until all these federations have ended."""
        deadline = time.monotonic() + until_s
        while True:
            then()
            try:
                for institution in self.institutions:
                    institution.act()
                seen = {federation: self.founder.federation(federation) for federation in federations}
            except UnavailableError:
                assert time.monotonic() < deadline, "the aggregator did not come back"
                continue
            if all(federation.state in ("finished", "failed") for federation in seen.values()):
                return seen
            if time.monotonic() > deadline:
                rounds = {federation.config.name: (federation.state, federation.round) for federation in seen.values()}
                work = [(to_hex(item.federation)[:10], item.round, item.attempt, item.stage) for item in self.institutions[0].client.work()]
                raise AssertionError(f"not ended after {until_s} s: {rounds}, running: {work}")
            time.sleep(LOOK_S)


def migrated(folder: Path, rpc_url: str, database_url: str | None = None, **changes: Any) -> ServiceSettings:
    """Settings of an aggregator whose database is ready; without a URL it is an SQLite file."""
    given = {
        "public_url": f"http://127.0.0.1:{free_port()}",
        "object_store_url": f"file://{folder / 'objects'}",
        "chain_rpc_url": rpc_url,
        "relayer_key": RELAYER_KEY,
    }
    settings = settings_for("aggregator", database_url or f"sqlite:///{folder / 'aggregator.sqlite'}", **given | changes)
    engine = open_engine(settings.database_url)
    migrate(engine, "services.aggregator")
    engine.dispose()
    return settings


@contextmanager
def gathered(
    settings: ServiceSettings, chain: Chain, folder: Path, silence: Silence = lambda *_: False, *, count: int = 4
) -> Iterator[Gathering]:
    """Everybody, signed in at an aggregator whose API is up."""
    signers = sorted((LocalSigner.generate() for _ in range(count)), key=lambda signer: signer.address.lower())
    founder, stranger = LocalSigner.generate(), LocalSigner.generate()
    with connected(settings, founder, stranger, *signers) as (founding, strange, *connections):
        institutions = [
            Institution(number, signer, connection, chain, folder, silence)
            for number, (signer, connection) in enumerate(zip(signers, connections, strict=True))
        ]
        stage = Gathering(settings, chain, folder, AggregatorClient(founding), founder, AggregatorClient(strange), institutions)
        wait_until(lambda: _is_introduced(stage.founder))
        yield stage


@contextmanager
def process(settings: ServiceSettings, module: str, *arguments: str) -> Iterator[None]:
    """A process of the aggregator, killed at the end."""
    with started(settings, module, *arguments) as running:
        try:
            yield
        finally:
            running.kill()
            running.wait()


def started(settings: ServiceSettings, module: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """A process in the environment of the settings; it says nothing."""
    silent = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment_of(settings), stdout=silent, stderr=silent
    )


def api_arguments(settings: ServiceSettings) -> tuple[str, ...]:
    """Arguments of uvicorn for the aggregator's API."""
    return ("--factory", "services.aggregator.app:create_app", "--host", "127.0.0.1", "--port", settings.public_url.rpartition(":")[2])


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _is_introduced(client: AggregatorClient) -> bool:
    try:
        return client.account() == AGGREGATOR.address
    except (ServiceError, UnavailableError):
        return False


def masked_uploads(settings: ServiceSettings) -> list[Path]:
    """What lies in the object store of single sites: everything but models, and sums as they were opened."""
    store = Path(settings.object_store_url.removeprefix("file://"))
    # Folders may go while they are walked, which `os.walk` takes as it comes.
    files = [Path(folder, name) for folder, _, names in os.walk(store) for name in names]
    return [path for path in files if path.relative_to(store).parts[0] not in ("models", "opened")]


def survivors_of(addresses: Sequence[str], members: Sequence[LocalSigner]) -> list[int]:
    """Their numbers."""
    return [number for number, member in enumerate(members) if member.address in addresses]
