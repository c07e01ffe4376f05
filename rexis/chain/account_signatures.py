"""Whether a signature counts as an account's: by its key, by a key that it delegated to, or as a contract account (ERC-1271).

The Forwarder decides the same way and in the same order; here it is decided before anybody pays for asking it, and for what never
reaches it.
"""

from rexis.chain.connection import Chain
from rexis.chain.contract_accounts import check_wallet_signature
from rexis.chain.delegations import Scope, check_covered
from rexis.errors import SignatureError, UnavailableError
from rexis.protocol.signatures import recover_address


def check_account_signature(chain: Chain | None, account: str, digest: bytes, signature: bytes, scope: Scope) -> None:
    """Check that `account` signed the 32-byte `digest`, or a key whose delegation covers `scope` now.

    The account's own key needs no chain. Of the others the chain is asked each time: what it says holds for the moment.

    Args:
        chain: None while it is not connected.
        account: checksum address.

    Raises:
        SignatureError: another key signed, or one whose delegation was revoked, has expired or does not cover this; other bytes were
            signed; or the contract account says no.
        UnavailableError: only the chain could tell, and it does not answer.
    """
    signer: str | None = None
    try:
        signer = recover_address(digest, signature)
    except SignatureError as error:
        refused = error
    else:
        if signer == account:
            return
        refused = SignatureError(f"expected a signature by {account}, got one by {signer}: wrong account, or a changed text")
    if chain is None:
        raise UnavailableError(f"{refused}; whether it counts all the same can not be told: the chain does not answer")
    uncovered = refused
    if signer is not None:
        try:
            check_covered(chain, account, signer, scope, refused)
        except SignatureError as error:
            uncovered = error
        else:
            return
    try:
        check_wallet_signature(chain.web3, account, digest, signature, refused)
    except SignatureError as error:
        if uncovered is refused:
            raise
        # A delegation that does not hold says more than a contract that knows nothing of it.
        raise uncovered from error
