"""The Python files under a folder, each with the project it belongs to and what that project says of its licence."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from coderl.corpus import licences
from coderl.types import InputError

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules", "venv"})
PROJECT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", "__init__.py")


@dataclass(frozen=True, slots=True)
class Source:
    """A file to look at."""

    folder: Path
    """The folder that was given."""
    path: str
    """Below that folder."""
    project: str
    licence: str | None
    """Of the project."""

    @property
    def file(self) -> Path:
        """Where it is."""
        return self.folder / self.path

    @property
    def name(self) -> str:
        """How the corpus names it."""
        return f"{self.folder.name}/{self.path}"


def find(folders: Sequence[Path]) -> list[Source]:
    """Return the Python files under the folders, in order; links are not followed, hidden folders left out.

    A file belongs to the installed project whose metadata in the folder lists it (`*.dist-info`); else to the folder
    given, if that is a project (it has a pyproject.toml or the like); else to the folder in it that leads to the file.

    Raises:
        InputError: a folder is missing, or none of them has a Python file.
    """
    found: list[Source] = []
    for given in folders:
        if not given.is_dir():
            raise InputError(f"{given}: no such folder")
        folder = given.resolve()
        found += _of_folder(folder)
    if not found:
        raise InputError(f"no Python file under {', '.join(map(str, folders))}")
    return found


def _of_folder(folder: Path) -> Iterator[Source]:
    files, packages = _installed(folder)
    trees: dict[str, tuple[str, str | None]] = {}
    is_project = any((folder / mark).exists() for mark in PROJECT_MARKS)
    for path in _python_files(folder):
        top = path.partition("/")[0]
        tree = "" if is_project or top == path else top
        if path in files or top in packages:
            project, licence = files.get(path) or packages[top]
        else:
            if tree not in trees:
                trees[tree] = (_normal_name(tree or folder.name), _tree_licence(folder / tree))
            project, licence = trees[tree]
        yield Source(folder, path, project, licence)


def _python_files(folder: Path) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED_FOLDERS)
        for name in sorted(files):
            path = os.path.join(root, name)
            if name.endswith(".py") and os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, folder)


def _installed(folder: Path) -> tuple[dict[str, tuple[str, str | None]], dict[str, tuple[str, str | None]]]:
    """Return (project, licence) by file, and by top-level name for projects that list no files."""
    files: dict[str, tuple[str, str | None]] = {}
    packages: dict[str, tuple[str, str | None]] = {}
    for distribution in metadata.distributions(path=[str(folder)]):
        fields: Any = distribution.metadata
        if not (name := fields.get("Name")):
            continue
        licence = licences.of_metadata(
            fields.get("License-Expression"), fields.get_all("Classifier") or [], fields.get("License")
        )
        claim = (_normal_name(name), licence)
        listed = [str(file) for file in distribution.files or () if file.suffix == ".py"]
        files.update(dict.fromkeys(listed, claim))
        if not listed:
            tops = (distribution.read_text("top_level.txt") or "").split()
            packages.update({spelling: claim for top in tops for spelling in (top, f"{top}.py")})
    return files, packages


def _tree_licence(folder: Path) -> str | None:
    """Return what a source tree's pyproject.toml says."""
    try:
        table = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    project = table.get("project") or table.get("tool", {}).get("poetry") or {}
    stated = project.get("license")
    text = stated.get("text") if isinstance(stated, dict) else stated
    return licences.of_metadata(None, project.get("classifiers") or [], text)


def _normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
