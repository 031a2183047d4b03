"""The command line: every stage is a command, and so is every function marked `@command`; each is opened when called.

What commands there are is read off the sources of the packages below, without importing them: `--help`, a mistyped
command and the commands that need no weights never load torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cyclopts
from cyclopts import App

import coderl
from coderl import processes
from coderl.flags import MANY, spread_lists
from coderl.types import InputError, SandboxError

PACKAGES = ("coderl.cli", "coderl.stages", "coderl.interop", "coderl.corpus", "coderl.codexglue")
"""Where commands and stages are declared."""
GROUPS = {"problems": "Read, make and check data sets of problems."}
SHARED = ("run", "demo")
"""Commands, beside the stages, that several processes may do together."""
_DECLARED = re.compile(
    r'^@(?:stage(?:\(shared="\w+"\))?|command\("([^"]+)"\))\ndef (\w+)\(.*?r?"""(.+?)(?:"""|$)',
    re.MULTILINE | re.DOTALL,
)


class Declared(NamedTuple):
    """A command as its source names it."""

    name: str
    module: str
    function: str
    help: str
    is_stage: bool


def declared() -> Iterator[Declared]:
    """Yield every command that a module of `PACKAGES` declares; where two have a name, the first."""
    seen: set[str] = set()
    for package in PACKAGES:
        for folder in importlib.import_module(package).__path__:
            for file in sorted(Path(folder).glob("*.py")):
                for match in _DECLARED.finditer(file.read_text(encoding="utf-8")):
                    name, function, line = match.groups()
                    name = name or function.replace("_", "-")
                    if name not in seen:
                        yield Declared(name, f"{package}.{file.stem}", function, line, match[0].startswith("@stage"))
                    seen.add(name)


def build(arguments: Sequence[str]) -> App:
    """Return the application, with the one command that the arguments name opened.

    Raises:
        InputError: there is no such command.
    """
    asked = [argument for argument in arguments[:2] if not argument.startswith("-")]
    known = list(declared())
    names = [each.name for each in known] + [*GROUPS]
    if asked and asked[0] not in names:
        near = difflib.get_close_matches(asked[0], names, n=1)
        raise InputError(f"no command {asked[0]!r}; " + (f"did you mean {near[0]!r}?" if near else "see coderl --help"))
    app = App(
        name="coderl",
        help="Code models that learn from their compiler errors and unit tests.",
        version=coderl.__version__,
        help_format="plaintext",
        default_parameter=MANY,
        suppress_keyboard_interrupt=False,
    )
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for each in known:
        group, _, name = each.name.rpartition(" ")
        parent = groups[group] if group else app
        if asked == each.name.split() or (not group and asked[:1] == [each.name]):
            function = _open(each)
            parent.command(function, name=name, help=_help(inspect.getdoc(function) or ""))
        else:
            parent.command(f"{each.module}:{each.function}", name=name, help=each.help)
    for group in groups.values():
        app.command(group)
    return app


def _open(each: Declared) -> Any:
    found = getattr(importlib.import_module(each.module), each.function)
    return found.command() if hasattr(found, "command") else found


def _help(doc: str) -> str:
    """Return what `--help` says before the flags: paragraphs in one line each, examples so that they can be copied."""
    described = re.split(r"^(?:Args|Raises|Source|Deviation):", doc, maxsplit=1, flags=re.MULTILINE)[0].strip()
    paragraphs = described.split("\n\n")
    return "\n\n".join(_examples(p) if p.startswith(" ") else " ".join(p.split()) for p in paragraphs)


def _examples(block: str) -> str:
    """Return example commands broken anew, at blanks, into lines that an 80-column terminal shows whole."""
    commands = block.replace("\\\n", " ").split("\n")
    how = {"width": 76, "subsequent_indent": "    ", "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(" \\\n".join(textwrap.wrap(" ".join(line.split()), **how)) for line in commands)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what a person got wrong is one line and exit status 2, a broken sandbox 3."""
    arguments = spread_lists(sys.argv[1:] if arguments is None else arguments)
    try:
        if processes.environment_size() > 1 and not _is_shared(arguments):
            processes.stay_alone()
            if processes.environment_rank() > 0:
                return
        how = {"exit_on_error": False, "print_error": False, "result_action": "return_value"}
        build(arguments)(arguments, **how)
        processes.leave()
    except (InputError, cyclopts.CycloptsError) as error:
        _fail(2, _one_line(error), error)
    except SandboxError as error:
        _fail(3, f"the sandbox failed: {error}", error)
    except KeyboardInterrupt as error:
        _fail(130, "stopped; the same command continues", error)
    except (OSError, MemoryError, RuntimeError, ValueError) as error:
        _fail(*_failure(error), error)


def _is_shared(arguments: Sequence[str]) -> bool:
    """Return whether the processes that a launcher started do a command together; another is done by one of them."""
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    return name in SHARED or any(each.name == name and each.is_stage for each in declared())


def _failure(error: Exception) -> tuple[int, str]:
    """Return the status and the line for what is nobody's mistake: a full disk, no memory, a training that diverged."""
    if type(error).__name__ == "TrainingError":
        return 4, str(error)
    if isinstance(error, processes.PeerError):
        return 1, str(error)
    if type(error).__name__ == "ValidationError":
        return 2, _one_line(error)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return 1, f"out of memory; the same command continues, best with smaller batches ({text[:200]})"
    if isinstance(error, OSError):
        return 1, f"{error.filename}: {error.strerror}" if error.filename and error.strerror else text
    raise error


def _one_line(error: Exception) -> str:
    from pydantic import ValidationError

    cause = error.__cause__ if isinstance(error, cyclopts.CycloptsError) else error
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg'].lower()}"
    return " ".join(str(error).split())


def _fail(status: int, text: str, error: BaseException) -> None:
    processes.report_failure(text, error)
    sys.exit(status)
