"""`python -m autoprune`: the same as the command `autoprune`."""

from autoprune.cli.main import main

main()
