"""Permits: what Python signs is what tokens check."""

from collections.abc import Callable
from typing import Any

import pytest

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.permits import PERMIT_TYPE, Permit, domain_of, sign_permit
from rexis.chain.signer import LocalSigner
from rexis.encoding import abi_encode, keccak256
from rexis.errors import ChainError, ContractRevertedError

SPENDER = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


def test_the_digest_is_made_of_the_tokens_own_separator(chain: Chain) -> None:
    token = chain.contract("LocalCredit")
    domain = domain_of(chain.web3, token.address)
    assert (domain.name, domain.version, domain.chain_id) == ("Rexis local credit", "1", 31337)
    fields = [LocalSigner.generate().address, SPENDER, 10**30, 7, 2**256 - 1]
    types = ["bytes32", "address", "address", "uint256", "uint256", "uint256"]
    struct = keccak256(abi_encode(types, [keccak256(PERMIT_TYPE.encode()), *fields]))
    digest = keccak256(b"\x19\x01" + token.functions.DOMAIN_SEPARATOR().call() + struct)
    assert Permit(*fields).typed_data(domain).hash() == digest


def test_a_token_takes_the_permit_once_and_for_its_owner(chain: Chain, institution: LocalSigner, transact: Callable[..., Any]) -> None:
    token = chain.contract("LocalCredit")
    deadline = chain.web3.eth.get_block("latest")["timestamp"] + 60
    permit = sign_permit(chain.web3, institution, token.address, SPENDER, 500, deadline)

    def hand_in(value: int) -> None:
        transact(token.address, encode_call("LocalCredit", "permit", institution.address, SPENDER, value, *permit.values()))

    with pytest.raises(ContractRevertedError, match="ERC2612InvalidSigner"):
        hand_in(501)
    hand_in(500)
    assert token.functions.allowance(institution.address, SPENDER).call() == 500
    with pytest.raises(ContractRevertedError, match="ERC2612InvalidSigner"):
        hand_in(500)
    # The next one has the next nonce.
    permit = sign_permit(chain.web3, institution, token.address, SPENDER, 300, deadline)
    hand_in(300)
    assert token.functions.allowance(institution.address, SPENDER).call() == 300


@pytest.mark.parametrize(("told", "signed"), [("2", "2"), ("", "1")])
def test_a_token_without_erc_5267_is_known_by_name_and_version(
    told: str, signed: str, chain: Chain, deploy_test_contract: Callable[..., Any]
) -> None:
    token = deploy_test_contract("PlainPermitToken", "Dollar", told, signed)
    domain = domain_of(chain.web3, token.address)
    assert (domain.name, domain.version) == ("Dollar", signed)


def test_a_domain_that_the_token_does_not_sign_by_is_refused(chain: Chain, deploy_test_contract: Callable[..., Any]) -> None:
    token = deploy_test_contract("PlainPermitToken", "Dollar", "1", "2")
    with pytest.raises(ChainError, match="separator"):
        domain_of(chain.web3, token.address)
    with pytest.raises(ChainError, match="DOMAIN_SEPARATOR"):
        domain_of(chain.web3, chain.contract("DatasetRegistry").address)
