"""Sealed fields of the agent's journal (section 7) against their vectors."""

import json
from pathlib import Path

import pytest

from rexis.agent.sealing import Lock, Sealer
from rexis.encoding import from_hex, to_hex
from rexis.errors import KeyFileError

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/journal.json").read_text(encoding="ascii"))
LOCK = Lock(from_hex(VECTOR["lock"]["salt"], 16), VECTOR["lock"]["workFactor"], from_hex(VECTOR["lock"]["sealedKey"]))


def test_a_journal_of_the_reference_opens():
    sealer = Sealer.open(VECTOR["passphrase"], LOCK)
    assert to_hex(sealer.fingerprint_key) == VECTOR["fingerprintKey"]
    assert to_hex(sealer.open_field(from_hex(VECTOR["field"]["sealed"]), VECTOR["field"]["place"])) == VECTOR["field"]["plaintext"]


def test_a_changed_or_moved_field_does_not_open():
    sealer, sealed = Sealer.open(VECTOR["passphrase"], LOCK), from_hex(VECTOR["field"]["sealed"])
    with pytest.raises(KeyFileError):
        sealer.open_field(sealed, VECTOR["field"]["place"] + "0")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(KeyFileError):
            sealer.open_field(bytes(changed), VECTOR["field"]["place"])
    with pytest.raises(KeyFileError, match="passphrase"):
        Sealer.open(VECTOR["passphrase"] + " ", LOCK)
