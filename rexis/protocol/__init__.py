"""Versioned messages between parties: typed data, relayed calls, sign-in, uploads, tensor files, secure aggregation."""

import importlib

# Before anything imports eth_account or web3; see there.
importlib.import_module("rexis.encoding")
