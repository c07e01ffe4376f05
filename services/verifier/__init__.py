"""Verifier: keeps inference receipts signed by providers, and commits them on chain, so that an auditor can hold a provider to them."""
