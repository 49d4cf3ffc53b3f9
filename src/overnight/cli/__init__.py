"""The `overnight` command, one file per command: argument parsing and printing only."""
