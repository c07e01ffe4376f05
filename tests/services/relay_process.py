"""`python -m tests.services.relay_process DATABASE_URL RPC_URL PRIVATE_KEY [PATIENCE_S]`: a relay of its own, until it is killed."""

import sys
import time

from rexis.chain.signer import LocalSigner
from services.foundation.database import open_engine
from services.foundation.outbox.policies import ChainPolicy
from services.foundation.outbox.relay import Relay
from tests.services.chain_process import connect

if __name__ == "__main__":
    database_url, rpc_url, key, *patience = sys.argv[1:]
    policy = ChainPolicy(confirmations=0, patience_s=float(*patience or ["60"]))
    relay = Relay(open_engine(database_url), connect(rpc_url), LocalSigner(bytes.fromhex(key)), policy)
    while True:
        relay.run_once()
        time.sleep(0.02)
