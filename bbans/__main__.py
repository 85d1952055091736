"""``python -m bbans``: the command line, for ``torchrun`` and the like."""

from bbans.cli import main

main(prog_name="bbans")
