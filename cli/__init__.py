"""The `clipbert` command."""
