"""The applications that the commands join, and what they share."""

from __future__ import annotations

import cyclopts
from cyclopts import Parameter

import coderl

app = cyclopts.App(
    name="coderl",
    help="Code models that learn from their compiler errors and unit tests.",
    version=coderl.__version__,
    help_format="markdown",
)
problems_app = cyclopts.App(name="problems", help="Read, make and check data sets of problems.")
app.command(problems_app)

Flat = Parameter(name="*")
"""Gives the settings of a stage as flags of their own: `--optim.learning-rate`, not `--config.optim.learning-rate`."""
