"""Versioned messages between parties: typed data, relayed calls, sign-in, uploads, tensor files, secure aggregation."""
