"""`python -m services.local.contracts RPC_URL RELAYER_KEY_FILE…`: puts the contracts onto the local chain and funds the relayers.

Idempotent: what the chain holds stays. Runs again after the chain was started again, because a chain that was killed in its first
second has forgotten everything.
"""

import sys
from pathlib import Path

from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import RPCEndpoint

from rexis.chain.connection import open_web3
from rexis.chain.deployer import deploy_contracts
from rexis.chain.deployments import load
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner, development_signer
from rexis.errors import ConfigurationError, RexisError

FUNDS = Web3.to_wei(1_000, "ether")


def fund(web3: Web3, address: str) -> None:
    """Give an account ether out of nothing, so that the deployer's nonces, and with them the contracts' addresses, do not depend on it.

    Raises:
        ConfigurationError: the node is not a development node.
    """
    if web3.eth.get_balance(Web3.to_checksum_address(address)) >= FUNDS // 2:
        return
    try:
        web3.manager.request_blocking(RPCEndpoint("anvil_setBalance"), [address, hex(FUNDS)])
    except Web3RPCError as error:
        raise ConfigurationError(f"the chain behind REXIS_CHAIN_RPC_URL gives no development funds: send ether to {address}") from error


def main(rpc_url: str, relayer_key_files: list[str]) -> None:
    """Deploy, then fund."""
    deploy_contracts(rpc_url, development_signer(0), load(LOCAL_CHAIN_ID))
    web3 = open_web3(rpc_url)
    for file in relayer_key_files:
        fund(web3, LocalSigner(bytes.fromhex(Path(file).read_text())).address)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except RexisError as error:
        raise SystemExit(f"error: {error}") from error
