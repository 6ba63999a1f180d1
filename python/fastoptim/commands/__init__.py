"""The commands of ``python -m fastoptim``: one module each.

A command has `ABOUT`, a line for the help; `add_arguments`, which describes its options; and `run`,
which gives the exit status.
"""
