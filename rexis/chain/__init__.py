"""The chain: contract bindings, signers, deployment records. ABIs and records ship with the package as data."""

import importlib

# Before anything imports eth_account or web3; see there.
importlib.import_module("rexis.encoding")
