"""No process of a service starts on a chain that is not the one of its deployment record, or with a key that everybody knows."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import load, write
from rexis.chain.kms import KmsSigner
from rexis.chain.signer import LocalSigner, Signer, development_signer
from rexis.chain.web3signer import Web3Signer
from rexis.errors import ConfigurationError, WrongChainError
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer
from services.foundation.assembly import relayer, run_service_background
from services.foundation.database import migrate, open_engine
from services.foundation.settings import RelayerSettings, ServiceSettings
from services.local.anvil import CHAIN_ID, anvil_command, find_anvil
from tests.contracts.vault_servers import aws_kms, web3signer
from tests.services.chain_process import ChainProcess, replaced, rpc, running
from tests.services.conftest import free_port
from tests.services.service_applications import SERVICES, client_of, environment_of, settings_for

ROOT = Path(__file__).parents[2]
OTHER_CHAIN_ID = 31338
KEY = "11" * 32
# Account 0 of the development mnemonic; anvil and Hardhat print it.
KNOWN_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


@dataclass(frozen=True)
class WrongChain:
    """A node, the record that contradicts it, and what the one line says."""

    rpc_url: str
    record: Path
    says: str


@pytest.fixture(scope="module")
def wrong_chains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WrongChain]]:
    with ExitStack() as stack:

        def folder(name: str) -> Path:
            return tmp_path_factory.mktemp(name)

        right = stack.enter_context(running(folder("right")))
        deployed = deploy_contracts(right.url, development_signer(0), load(CHAIN_ID))
        record = folder("record") / "31337.json"
        write(deployed, record)

        again = stack.enter_context(replaced(folder("again"), right.url))
        deploy_contracts(again.url, development_signer(0), load(CHAIN_ID))

        changed = stack.enter_context(running(folder("changed")))
        deploy_contracts(changed.url, development_signer(0), load(CHAIN_ID))
        registry = deployed.contracts["DatasetRegistry"].address
        rpc(changed.url, "anvil_setCode", registry, "0x6001600255")
        shipped = folder("shipped") / "31337.json"
        write(load(CHAIN_ID), shipped)

        port, ready = free_port(), folder("other") / "ready.json"
        command = anvil_command(find_anvil(), port, ready, block_time_s=None)
        command[command.index("--chain-id") + 1] = str(OTHER_CHAIN_ID)
        other = stack.enter_context(subprocess.Popen(command))
        stack.callback(other.terminate)
        yield {
            "chain id": WrongChain(wait_for_anvil_on(other, port, ready), record, f"expected chain id {CHAIN_ID}, got {OTHER_CHAIN_ID}"),
            "genesis": WrongChain(again.url, record, "it was replaced by a new one"),
            "code": WrongChain(changed.url, shipped, f"expected DatasetRegistry at {registry} with code hash"),
            "no contract": WrongChain(stack.enter_context(running(folder("empty"))).url, shipped, "got no contract: deploy it first"),
        }


def wait_for_anvil_on(process: "subprocess.Popen[bytes]", port: int, ready: Path) -> str:
    # `wait_for_anvil` wants the id of the local chain too.
    deadline = time.monotonic() + 10
    while not ready.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline, "anvil did not start"
        time.sleep(0.01)
    return f"http://127.0.0.1:{port}"


def settings_on(service: str, folder: Path, wrong: WrongChain, **changes: Any) -> ServiceSettings:
    settings = settings_for(
        service,
        f"sqlite:///{folder / 'service.sqlite'}",
        **{"chain_rpc_url": wrong.rpc_url, "deployment_file": wrong.record, "relayer_key": KEY, **changes},
    )
    engine = open_engine(settings.database_url)
    migrate(engine, f"services.{service}")
    engine.dispose()
    return settings


@pytest.mark.parametrize("what", ["chain id", "genesis", "code", "no contract"])
@pytest.mark.parametrize("service", SERVICES)
def test_neither_api_nor_background_starts_on_a_wrong_chain(
    service: str, what: str, wrong_chains: dict[str, WrongChain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = wrong_chains[what]
    settings = settings_on(service, tmp_path, wrong)
    with pytest.raises(WrongChainError, match=wrong.says), client_of(settings):
        pytest.fail("the API serves")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    background = import_module(f"services.{service}.background")
    with pytest.raises(SystemExit, match=f"^error: .*{wrong.says}") as ended:
        run_service_background(type(settings), background.jobs)
    assert "\n" not in str(ended.value)


def started(settings: ServiceSettings, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment_of(settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def refusal_of(process: "subprocess.Popen[str]", says: str) -> str:
    """The one line of a process that ended by itself."""
    _, written = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    # What a job tells that asked before the chain was there is not how the process ended.
    lines = [line for line in written.splitlines() if '"event": "background job failed"' not in line]
    assert not any("Traceback" in line for line in lines), written
    (line,) = [line for line in lines if says in line]
    return line


@pytest.mark.parametrize("service", SERVICES)
def test_a_process_says_in_one_line_why_it_does_not_start(service: str, wrong_chains: dict[str, WrongChain], tmp_path: Path) -> None:
    wrong = wrong_chains["code"]
    settings = settings_on(service, tmp_path, wrong)
    api = started(settings, "-m", "uvicorn", "--factory", f"services.{service}.app:create_app", "--port", str(free_port()))
    background = started(settings, "-m", f"services.{service}.background")
    for process in (api, background):
        assert "error: " in refusal_of(process, wrong.says)


def test_a_chain_that_comes_late_and_is_wrong_ends_the_background_process(wrong_chains: dict[str, WrongChain], tmp_path: Path) -> None:
    late = ChainProcess(tmp_path)
    wrong = replace(wrong_chains["no contract"], rpc_url=late.url)
    process = started(settings_on("verifier", tmp_path, wrong), "-m", "services.verifier.background")
    try:
        assert process.stderr is not None
        assert any("starting without the chain" in line for line in process.stderr)
        late.start()
        assert refusal_of(process, wrong.says).startswith("error: ")
    finally:
        process.kill()
        late.kill()


# --- Keys -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def other_record(tmp_path: Path) -> Path:
    path = tmp_path / "other.json"
    write(replace(load(CHAIN_ID), chain_id=OTHER_CHAIN_ID), path)
    return path


def off_the_local_chain(folder: Path, record: Path, service: str = "trainer", **changes: Any) -> ServiceSettings:
    """Settings for a chain that does not answer: only the key can be wrong."""
    nobody = WrongChain("http://127.0.0.1:1", record, "")
    return settings_on(service, folder, nobody, chain_id=OTHER_CHAIN_ID, relayer_key=None, **changes)


def key_file(folder: Path, signer: LocalSigner) -> Path:
    path = folder / "key.json"
    path.write_bytes(signer.keystore("correct horse"))
    return path


@pytest.mark.parametrize("service", SERVICES)
def test_a_key_that_everybody_knows_does_not_start_off_the_local_chain(
    service: str, other_record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = key_file(tmp_path, development_signer(0))
    settings = off_the_local_chain(tmp_path, other_record, service, relayer_keystore=file, relayer_passphrase="correct horse")
    environment = environment_of(settings)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    background = import_module(f"services.{service}.background")
    refusal = f"well-known development key and signs for chain {CHAIN_ID} only, not for {OTHER_CHAIN_ID}"
    with pytest.raises(SystemExit, match=f"^error: .*{refusal}"):
        run_service_background(type(settings), background.jobs)
    # As a raw key it is told from the settings alone, by every process.
    for name in ("REXIS_RELAYER_KEYSTORE", "REXIS_RELAYER_PASSPHRASE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("REXIS_RELAYER_KEY", KNOWN_KEY)
    with pytest.raises(ConfigurationError, match=f"REXIS_RELAYER_KEY: .*{refusal}"):
        type(settings).from_environment()
    monkeypatch.setenv("REXIS_CHAIN_ID", str(CHAIN_ID))
    assert type(settings).from_environment()


def test_the_signer_is_the_one_that_the_settings_name(other_record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, key = LocalSigner(b"\x42" * 32), ec.derive_private_key(int.from_bytes(b"\x42" * 32, "big"), ec.SECP256K1())
    note = TypedMessage(Domain(OTHER_CHAIN_ID), "Note(uint256 number)", {"number": 7})
    for name, value in {
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with web3signer(b"\x42" * 32).running() as signing, aws_kms(key, "alias/relayer").running() as kms:
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.url)
        forms: list[tuple[type[Signer], dict[str, Any]]] = [
            (LocalSigner, {"relayer_keystore": key_file(tmp_path, mine), "relayer_passphrase": "correct horse"}),
            (Web3Signer, {"relayer_web3signer_url": signing.url, "relayer_address": mine.address.lower()}),
            (KmsSigner, {"relayer_kms_key": "alias/relayer", "relayer_address": mine.address}),
        ]
        for kind, form in forms:
            settings = off_the_local_chain(tmp_path, other_record, **form)
            assert isinstance(settings, RelayerSettings)
            signer = relayer(settings)
            assert type(signer) is kind
            verify_signer(note, signer.sign_typed_data(note), mine.address)
            wrong = settings.model_copy(update={"relayer_address": development_signer(1).address})
            with pytest.raises(ConfigurationError, match="0x70997970C51812dc3A010C7d01b50e0d17dc79C8"):
                relayer(wrong)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"relayer_key": KEY, "relayer_kms_key": "alias/a"}, "REXIS_RELAYER_KEY and REXIS_RELAYER_KMS_KEY are set at once"),
        ({"relayer_kms_key": "a", "relayer_web3signer_url": "http://s", "relayer_address": "0x" + "11" * 20}, "are set at once"),
        ({"relayer_web3signer_url": "https://signer:9000"}, "needs REXIS_RELAYER_ADDRESS"),
        ({"relayer_web3signer_url": "https://signer:9000", "relayer_address": "0x12"}, "expected an address"),
        ({"relayer_keystore": "/key.json"}, "belong together"),
    ],
)
def test_half_a_form_or_two_forms_of_a_key_are_refused(form: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_for("verifier", "sqlite:///unused", **form)


def test_production_wants_no_raw_key_and_no_open_way_to_a_vault() -> None:
    production = {
        "env": "production",
        "public_url": "https://verifier.example.org",
        "redis_url": "rediss://redis:6379/0",
        "object_store_url": "s3://bucket/verifier",
        "chain_id": 8453,
    }

    def settings(**form: str) -> dict[str, Any]:
        return settings_for("verifier", "postgresql+psycopg://database/verifier", **production, **form).masked()

    address = "0x" + "11" * 20
    for signer in ("https://signer:9000", "http://127.0.0.1:9000"):
        shown = settings(relayer_web3signer_url=signer.replace("//", "//user:s3cret@"), relayer_address=address)
        assert shown["relayer_web3signer_url"] == signer.replace("//", "//***@")
    settings(relayer_kms_key="alias/relayer")
    for refused in ({"relayer_key": KEY}, {"relayer_web3signer_url": "http://signer:9000", "relayer_address": address}):
        with pytest.raises(ValueError, match="REXIS_ENV=production refuses REXIS_RELAYER_"):
            settings(**refused)
