"""`python -m contracts.script.deploy`: with a key from wherever it is, and not with one that everybody knows."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rexis.chain.deployer import CONTRACTS, CREATED
from rexis.chain.deployments import read
from rexis.chain.signer import LocalSigner, development_signer
from services.local.anvil import anvil_command, find_anvil
from tests.contracts.conftest import free_port
from tests.contracts.vault_servers import aws_kms, web3signer
from tests.services.chain_process import rpc

ROOT = Path(__file__).parents[2]
KEY = b"\x42" * 32
OWNER = LocalSigner(KEY).address
CHAIN_ID = 31338


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty chain that is not the local one."""
    port, ready = free_port(), tmp_path_factory.mktemp("node") / "ready.json"
    command = anvil_command(find_anvil(), port, ready, block_time_s=None)
    command[command.index("--chain-id") + 1] = str(CHAIN_ID)
    with subprocess.Popen(command) as process:
        while not ready.exists():
            assert process.poll() is None
        yield f"http://127.0.0.1:{port}"
        process.terminate()


def deploy(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "contracts.script.deploy", *arguments]
    given = {**os.environ, "REXIS_PASSPHRASE": "correct horse", **environment}
    return subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=120, check=False)


def key_file(folder: Path, signer: LocalSigner) -> str:
    path = folder / f"{signer.address}.json"
    path.write_bytes(signer.keystore("correct horse"))
    return str(path)


def test_a_vault_deploys_and_the_others_find_it_done(node: str, tmp_path: Path) -> None:
    rpc(node, "anvil_setBalance", OWNER, hex(10**20))
    record = tmp_path / "31338.json"
    common = ("--rpc-url", node, "--record", str(record))
    with web3signer(KEY).running() as vault:
        done = deploy(*common, "--web3signer", vault.url, "--address", OWNER)
        assert done.returncode == 0, done.stderr
        # Every transaction came from the vault: there was no other key.
        assert sum(method == "POST" for method, _, _ in vault.requests) >= len(CONTRACTS)
    first = read(record)
    # Play money can not exist here.
    assert (first.chain_id, list(first.contracts)) == (CHAIN_ID, sorted([*CONTRACTS, *CREATED]))
    assert {json.loads(record.read_text())["contracts"]["PaymentTokens"]["arguments"][0]} == {OWNER}
    blocks = rpc(node, "eth_blockNumber")

    key = ec.derive_private_key(int.from_bytes(KEY, "big"), ec.SECP256K1())
    with aws_kms(key, "alias/deployer").running() as kms:
        aws = {"AWS_ENDPOINT_URL_KMS": kms.url, "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
        aws |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        again = deploy(*common, "--kms-key", "alias/deployer", "--address", OWNER, **aws)
        assert again.returncode == 0, again.stderr
    again = deploy(*common, "--keystore", key_file(tmp_path, LocalSigner(KEY)))
    assert again.returncode == 0, again.stderr
    assert read(record) == first
    assert rpc(node, "eth_blockNumber") == blocks


def test_what_must_not_deploy_says_so_in_one_line_and_sends_nothing(node: str, tmp_path: Path) -> None:
    record, known = tmp_path / "31338.json", development_signer(0)
    mine, theirs = key_file(tmp_path, LocalSigner(KEY)), key_file(tmp_path, known)
    blocks = rpc(node, "eth_blockNumber")
    for arguments, says in (
        (("--rpc-url", node, "--keystore", theirs), "well-known development key and signs for chain 31337 only, not for 31338"),
        (("--rpc-url", node, "--keystore", mine, "--address", known.address), f"the key is that of {OWNER}"),
        (("--rpc-url", "http://127.0.0.1:1", "--keystore", mine), "is --rpc-url right?"),
        (("--rpc-url", node, "--web3signer", "http://127.0.0.1:1", "--address", OWNER), "web3signer does not answer"),
    ):
        refused = deploy(*arguments, "--record", str(record))
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: ")
        assert says in refused.stderr
        assert refused.stderr.count("\n") == 1
    for arguments, says in (
        (("--rpc-url", node), "--keystore, --web3signer or --kms-key"),
        (("--rpc-url", node, "--web3signer", "http://127.0.0.1:1"), "needs --address"),
        (("--rpc-url", node, "--keystore", mine, "--kms-key", "a"), "not allowed with"),
    ):
        refused = deploy(*arguments)
        assert refused.returncode == 2
        assert says in refused.stderr
    assert not record.exists()
    assert rpc(node, "eth_blockNumber") == blocks
