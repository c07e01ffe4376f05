"""Runnable examples on real data, using only what an institution has: `rexis.client`, `rexis.agent` and the command line."""
