"""What an auditor re-computes. Executing needs torch, comparing files does not; reached only from `rexis verify`."""
