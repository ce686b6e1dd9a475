"""The subcommands of `miwake`, one file a subject: words from the command line to a function of its package.

Each function imports what it needs when it is called, so that `miwake --help` stays light. cli.py names
them.
"""
