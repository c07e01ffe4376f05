"""Deploy the contracts and write the deployment record; or make the committed record of the local chain anew.

    python -m contracts.script.deploy --rpc-url URL KEY [--record FILE]
    python -m contracts.script.deploy --local [--check]                    deployments/31337.json, on a passing anvil

KEY is the deployer's, who pays and owns the contracts at first: `--keystore FILE` (passphrase from REXIS_PASSPHRASE, or asked for),
`--web3signer URL --address ACCOUNT` (with `--tls-authority`, `--tls-certificate`, `--tls-key`), or `--kms-key ID` (AWS).

Run from the repository root. A second run does nothing where the chain already holds what the record names. Commit the record.
"""

import argparse
import getpass
import os
import sys
from dataclasses import replace
from pathlib import Path

from rexis.chain.connection import NODE_FAILURES, open_web3
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import Deployment, read, write
from rexis.chain.kms import AwsKmsKey, KmsSigner
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner, Signer, development_signer, refuse_development_key
from rexis.chain.web3signer import ClientTls, Web3Signer
from rexis.encoding import checksum_address
from rexis.errors import ConfigurationError, RexisError, UnavailableError
from services.local.anvil import passing_anvil

DEPLOYMENTS = Path(__file__).resolve().parents[1] / "deployments"


def local_record() -> Deployment:
    """What the development deployer's first transactions give on any empty local chain: genesis, blocks and hashes are left out."""
    with passing_anvil() as url:
        deployment = deploy_contracts(url, development_signer(0))
    contracts = {name: replace(contract, block=0, transaction=None) for name, contract in deployment.contracts.items()}
    return replace(deployment, genesis_hash=None, contracts=contracts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", action="store_true", help="make the record of the local chain")
    parser.add_argument("--check", action="store_true", help="with --local: compare with the committed record and write nothing")
    parser.add_argument("--rpc-url", help="JSON-RPC node")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--keystore", type=Path, help="key file (web3 secret storage, version 3)")
    key.add_argument("--web3signer", metavar="URL", help="web3signer that holds the key of --address")
    key.add_argument("--kms-key", metavar="ID", help="id, ARN or alias of a key in AWS KMS")
    parser.add_argument("--address", help="account of the deployer; compared with the key where one is given beside it")
    parser.add_argument("--tls-authority", type=Path, help="PEM file of whoever signed web3signer's certificate")
    parser.add_argument("--tls-certificate", type=Path, help="PEM file of the certificate that web3signer knows this client by")
    parser.add_argument("--tls-key", type=Path, help="PEM file of its key")
    parser.add_argument("--record", type=Path, help="default: deployments/<chain id>.json")
    given = parser.parse_args()

    if given.local:
        record, made = DEPLOYMENTS / f"{LOCAL_CHAIN_ID}.json", local_record()
        if given.check and (not record.exists() or read(record) != made):
            print(f"{record.name} is not what the contracts give; run `make contracts` and commit", file=sys.stderr)
            return 1
        if not given.check:
            write(made, record)
        return 0
    if given.rpc_url is None or (given.keystore is None and given.web3signer is None and given.kms_key is None):
        parser.error("--rpc-url and --keystore, --web3signer or --kms-key; or --local")
    if given.web3signer is not None and given.address is None:
        parser.error("--web3signer needs --address: it may hold many keys")
    try:
        made = deploy(given)
    except RexisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, contract in made.contracts.items():
        print(f"{name} {contract.address} block {contract.block}")
    return 0


def deploy(given: argparse.Namespace) -> Deployment:
    """Deploy what is missing and write the record.

    Raises:
        RexisError: as `deploy_contracts`, and where the key can not be used for this chain.
    """
    signer, chain_id = deployer(given), chain_id_of(given.rpc_url)
    refuse_development_key(signer.address, chain_id)
    record = given.record or DEPLOYMENTS / f"{chain_id}.json"
    made = deploy_contracts(given.rpc_url, signer, read(record) if record.exists() else None)
    write(made, record)
    return made


def deployer(given: argparse.Namespace) -> Signer:
    """The deployer's key, wherever it is.

    Raises:
        RexisError: it is not there, or another account's.
    """
    signer: Signer
    if given.web3signer is not None:
        signer = Web3Signer(given.web3signer, given.address, tls=ClientTls(given.tls_authority, given.tls_certificate, given.tls_key))
    elif given.kms_key is not None:
        signer = KmsSigner(AwsKmsKey(given.kms_key))
    else:
        passphrase = os.environ.get("REXIS_PASSPHRASE") or getpass.getpass("passphrase of the key file: ")
        signer = LocalSigner.from_keystore(given.keystore, passphrase)
    if given.address is not None and checksum_address(given.address) != signer.address:
        raise ConfigurationError(f"--address says {given.address}, the key is that of {signer.address}: correct one of them")
    return signer


def chain_id_of(rpc_url: str) -> int:
    """Asked of the node.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        return int(open_web3(rpc_url).eth.chain_id)
    except NODE_FAILURES as error:
        raise UnavailableError(f"the chain does not answer ({type(error).__name__}); is --rpc-url right?") from error


if __name__ == "__main__":
    sys.exit(main())
