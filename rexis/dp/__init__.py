"""Differential privacy: noise (`mechanisms`), what it costs (`accountant`), and the ledger that refuses (`budget`)."""
