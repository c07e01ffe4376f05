"""Differential privacy: noise (`mechanisms`, `skellam`), what it costs (`accountant`), and the ledger that refuses (`budget`)."""
