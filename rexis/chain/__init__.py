"""The chain: contract bindings, signers, deployment records. ABIs and records ship with the package as data."""
