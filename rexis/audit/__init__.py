"""What an auditor re-computes. Needs torch; reached only from a verifier's worker and from `rexis verify`."""
