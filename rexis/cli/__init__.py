"""The command `rexis`. Imported by nothing but its entry point."""
