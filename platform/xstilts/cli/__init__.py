"""The `xstilts` command."""
