"""Names, options and help of the commands, one noun a module. What a command does is imported when it runs, so that `--help` stays fast."""
