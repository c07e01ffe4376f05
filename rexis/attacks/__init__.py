"""Attacks on what Rexis itself offers, as library functions: what breaks, given what the attacker knows."""
