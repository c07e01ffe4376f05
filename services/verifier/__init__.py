"""Verifier: keeps inference receipts signed by providers, so that an auditor can hold a provider to them."""
