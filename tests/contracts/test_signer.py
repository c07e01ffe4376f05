"""Keys: what they sign, what they refuse, and key files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from eth_account import Account

from rexis.chain.signer import DEVELOPMENT_ADDRESSES, LocalSigner, development_signer
from rexis.errors import ConfigurationError, KeyFileError
from rexis.protocol.sign_in import SignInMessage
from rexis.protocol.typed_data import Domain, TypedMessage, verify_signer

FIELDS = {"nonce": 0, "to": "0x" + "11" * 20, "value": 0, "gas": 21_000, "maxFeePerGas": 1, "maxPriorityFeePerGas": 1, "data": b""}


def message(chain_id: int) -> TypedMessage:
    return TypedMessage(Domain(chain_id), "Note(uint256 number)", {"number": 7})


def sign_in_message(address: str, chain_id: int) -> SignInMessage:
    issued = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    return SignInMessage("m.test", address, "Sign in.", "https://m.test", "1", chain_id, "abcdefgh", issued, issued + timedelta(hours=1))


@pytest.mark.parametrize("index", [0, 9, 19])
def test_development_keys_sign_on_the_local_chain_only(index: int) -> None:
    signer = development_signer(index)
    assert signer.address in DEVELOPMENT_ADDRESSES
    assert Account.recover_transaction(signer.sign_transaction(FIELDS | {"chainId": 31337})) == signer.address
    verify_signer(message(31337), signer.sign_typed_data(message(31337)), signer.address)
    for chain_id in (1, 8453, 1337):
        with pytest.raises(ConfigurationError, match="well-known development key"):
            signer.sign_transaction(FIELDS | {"chainId": chain_id})
        with pytest.raises(ConfigurationError, match="well-known development key"):
            signer.sign_typed_data(message(chain_id))
        # What `rexis login` does before it keeps anything.
        with pytest.raises(ConfigurationError, match="well-known development key"):
            signer.sign_in(sign_in_message(signer.address, chain_id))


def test_the_list_of_development_addresses_is_the_mnemonics() -> None:
    assert {development_signer(index).address for index in range(20)} == DEVELOPMENT_ADDRESSES


def test_other_keys_sign_for_any_chain() -> None:
    signer = LocalSigner.generate()
    assert Account.recover_transaction(signer.sign_transaction(FIELDS | {"chainId": 8453})) == signer.address
    verify_signer(message(8453), signer.sign_typed_data(message(8453)), signer.address)


def test_a_transaction_without_chain_id_is_not_signed() -> None:
    # It would count on every chain.
    with pytest.raises(KeyError):
        LocalSigner.generate().sign_transaction(FIELDS)


def test_a_key_file_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    signer = LocalSigner.generate()
    path = tmp_path / "key.json"
    path.write_bytes(signer.keystore("correct horse"))
    assert LocalSigner.from_keystore(path, "correct horse").address == signer.address
    with pytest.raises(KeyFileError, match=r"key\.json does not open"):
        LocalSigner.from_keystore(path, "battery staple")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"version": 3}', b'{"version": 3, "crypto": {"kdf": "none"}}', b"\xff"])
def test_files_that_are_no_key_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    with pytest.raises(KeyFileError):
        LocalSigner.from_keystore(path, "correct horse")


def test_missing_key_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        LocalSigner.from_keystore(tmp_path / "nothing.json", "correct horse")


def test_a_key_is_not_shown() -> None:
    key = b"\x07" * 32
    assert "07" * 32 not in repr(LocalSigner(key))
    assert repr(LocalSigner(key)) == f"LocalSigner({LocalSigner(key).address})"
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            LocalSigner(bytes(length))
