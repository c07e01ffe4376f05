"""Deploy the contracts and write the deployment record; or make the committed record of the local chain anew.

    python -m contracts.script.deploy --rpc-url URL --keystore FILE [--record FILE]    passphrase from REXIS_PASSPHRASE, or asked for
    python -m contracts.script.deploy --local [--check]                                deployments/31337.json, on a passing anvil

Run from the repository root. A second run does nothing where the chain already holds what the record names. Commit the record.
"""

import argparse
import getpass
import os
import sys
from dataclasses import replace
from pathlib import Path

from rexis.chain.connection import open_web3
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import Deployment, read, write
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner, development_signer
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
    parser.add_argument("--keystore", type=Path, help="key file of the deployer, who pays and owns the contracts at first")
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
    if given.rpc_url is None or given.keystore is None:
        parser.error("--rpc-url and --keystore, or --local")
    passphrase = os.environ.get("REXIS_PASSPHRASE") or getpass.getpass("passphrase of the key file: ")
    signer = LocalSigner.from_keystore(given.keystore, passphrase)
    record = given.record or DEPLOYMENTS / f"{open_web3(given.rpc_url).eth.chain_id}.json"
    made = deploy_contracts(given.rpc_url, signer, read(record) if record.exists() else None)
    write(made, record)
    for name, contract in made.contracts.items():
        print(f"{name} {contract.address} block {contract.block}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
