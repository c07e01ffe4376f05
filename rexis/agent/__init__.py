"""The on-premise agent: what an institution runs beside its data. Raw rows, salts and keys never leave through it."""
