"""The operator's command, `rexis-admin`."""
