"""The command line: one subcommand a stage, `run` for all of them; a module for each group of commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import cyclopts
from pydantic import ValidationError

from coderl.cli import (
    corpus,
    data,
    original,
    programs,
    results,
    runs,
    sandbox,
    training,
)
from coderl.cli.apps import app
from coderl.codexglue import commands as codexglue
from coderl.training.loop import TrainingError
from coderl.types import InputError, SandboxError

COMMANDS = (runs, data, corpus, training, programs, results, sandbox, original, codexglue)
"""Importing them is what makes the commands known."""
__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a person got wrong is one line and exit status 2, a broken sandbox 3."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (InputError, cyclopts.CycloptsError, ValidationError) as error:
        _fail(2, _one_line(error))
    except SandboxError as error:
        _fail(3, f"the sandbox failed: {error}")
    except TrainingError as error:
        _fail(4, str(error))
    except OSError as error:
        _fail(1, str(error))
    except KeyboardInterrupt:
        _fail(130, "stopped; the same command continues")


def _one_line(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, cyclopts.CycloptsError) else error
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg'].lower()}"
    return " ".join(str(error).split())


def _fail(status: int, text: str) -> None:
    print(f"coderl: {text}", file=sys.stderr)
    sys.exit(status)
