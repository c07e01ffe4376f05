"""Every error that a contract can revert with: by its selector to its name, its arguments, and a sentence for people."""

import re
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given, settings
from hypothesis import strategies as st

from rexis.chain.artifacts import artifact, contract_names
from rexis.chain.calls import canonical_type, selector, signature
from rexis.chain.explanations import EXPLANATIONS
from rexis.chain.reverts import decode_revert
from rexis.encoding import checksum_address


def errors_of(contract: str) -> list[dict[str, Any]]:
    return [entry for entry in artifact(contract).abi if entry["type"] == "error"]


# By signature: the error and every contract whose interface lists it.
DECLARED: dict[str, tuple[dict[str, Any], list[str]]] = {}
for contract_name in contract_names():
    for declared in errors_of(contract_name):
        DECLARED.setdefault(signature(declared), (declared, []))[1].append(contract_name)
# The interface of a library is nothing but the errors of whoever uses it.
LIBRARIES = {name for name in contract_names() if len(errors_of(name)) == len(artifact(name).abi)}


def values(kind: str) -> st.SearchStrategy[Any]:
    """What a custom error carries, and how the encoder wants it."""
    if found := re.fullmatch(r"uint(\d+)", kind):
        return st.integers(0, 2 ** int(found[1]) - 1)
    if found := re.fullmatch(r"bytes(\d+)", kind):
        return st.binary(min_size=int(found[1]), max_size=int(found[1]))
    match kind:
        case "address":
            return st.binary(min_size=20, max_size=20).map(lambda raw: checksum_address("0x" + raw.hex()))
        case "bool":
            return st.booleans()
        case "bytes":
            return st.binary(max_size=100)
        case "string":
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    if kind.endswith("[]"):
        return st.lists(values(kind[:-2]), max_size=4)
    raise AssertionError(f"no values for {kind}: add them")


def shown(value: Any) -> Any:
    return "0x" + value.hex() if isinstance(value, bytes) else [shown(item) for item in value] if isinstance(value, list) else value


def declaring(contracts: list[str]) -> str:
    """Whom a decoded error names: a library before its users, nobody where any of several contracts may have reverted."""
    libraries = [name for name in contracts if name in LIBRARIES]
    return libraries[0] if libraries else contracts[0] if len(contracts) == 1 else ""


@pytest.mark.parametrize("declared", sorted(DECLARED))
@settings(max_examples=8)
@given(data=st.data())
def test_every_error_of_every_contract_is_named_and_explained(declared: str, data: st.DataObject) -> None:
    entry, contracts = DECLARED[declared]
    kinds = [canonical_type(component) for component in entry["inputs"]]
    given_values = [data.draw(values(kind)) for kind in kinds]
    error = decode_revert(selector(entry) + encode(kinds, given_values))
    assert (error.contract, error.error) == (declaring(contracts), entry["name"])
    names = [component["name"] or f"_{place}" for place, component in enumerate(entry["inputs"])]
    assert error.arguments == dict(zip(names, map(shown, given_values), strict=True))
    assert error.explanation
    assert str(error).startswith(f"the contract refused: {error.explanation} [")


def test_no_two_different_errors_share_a_selector() -> None:
    selectors = {selector(entry): name for name, (entry, _) in DECLARED.items()}
    assert len(selectors) == len(DECLARED)
    assert not selectors.keys() & {bytes.fromhex("08c379a0"), bytes.fromhex("4e487b71")}


def test_sentences_are_for_people() -> None:
    for name, sentence in EXPLANATIONS.items():
        assert re.fullmatch(r"[a-z][^\n]{15,}[^\s.]", sentence), name
        # The name of the error, or of an argument, explains nothing.
        assert not re.search(r"\b[a-z]+[A-Z]\w*|\b[A-Z][a-z]+[A-Z]\w*", sentence.removeprefix("OpenZeppelin")), name


def test_what_nobody_declared_says_that_it_is_not_known() -> None:
    for data, sentence in ((b"", "does not say why"), (b"\xde\xad\xbe\xef", "does not know")):
        assert sentence in decode_revert(data).explanation
        assert sentence in str(decode_revert(data))
