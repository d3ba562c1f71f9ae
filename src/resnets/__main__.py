"""`python -m resnets` is the command `resnets`."""

from resnets.cli.main import entry

entry()
