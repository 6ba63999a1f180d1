"""The commands of ``python -m fastoptim``: one module each.

A command has `ABOUT`, a line for the help; `add_arguments`, which adds its options; and `run`,
which returns the exit status.
"""
