"""Every file has the project that installed it, or the folder it lies in."""

import pytest

from coderl.corpus import sources
from coderl.types import InputError


def install(folder, name, licence, files, listed=True):
    """A package as an installer leaves it."""
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x = 1\n")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{licence}\n")
    if listed:
        (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    else:
        (info / "top_level.txt").write_text("\n".join(sorted({p.split("/")[0].removesuffix(".py") for p in files})))


def test_installed_packages(tmp_path):
    install(tmp_path, "Some.Name", "License-Expression: MIT", ["pkg/a.py", "pkg/sub/b.py", "single.py"])
    install(tmp_path, "other", "License: GPL", ["ns/other.py"])
    install(tmp_path, "third", "Classifier: License :: OSI Approved :: BSD License", ["ns/third.py"])
    install(tmp_path, "old", "License: Apache 2.0", ["oldpkg/c.py", "oldmod.py"], listed=False)
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "s.py").write_text("x = 1\n")
    found = {s.path: (s.project, s.licence) for s in sources.find([tmp_path])}
    assert found == {
        "pkg/a.py": ("some-name", "MIT"),
        "pkg/sub/b.py": ("some-name", "MIT"),
        "single.py": ("some-name", "MIT"),
        "ns/other.py": ("other", "GPL"),
        "ns/third.py": ("third", "BSD"),
        "oldpkg/c.py": ("old", "Apache-2.0"),
        "oldmod.py": ("old", "Apache-2.0"),
        "stray/s.py": ("stray", None),
    }


def test_folders_of_projects_and_a_project(tmp_path):
    for name, text in (("one", '[project]\nlicense = "MIT"\n'), ("two", "[project]\nlicense = {text = 'ISC'}\n"),
                       ("three", "not toml [")):  # fmt: skip
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "pyproject.toml").write_text(text)
        (tmp_path / name / "src" / "a.py").write_text("x = 1\n")
    found = {s.path: (s.project, s.licence) for s in sources.find([tmp_path])}
    assert found == {"one/src/a.py": ("one", "MIT"), "two/src/a.py": ("two", "ISC"), "three/src/a.py": ("three", None)}
    assert [(s.project, s.licence, s.name) for s in sources.find([tmp_path / "one"])] == [
        ("one", "MIT", "one/src/a.py")
    ]


def test_a_package_alone_is_one_project(tmp_path):
    for path in ("pkg/__init__.py", "pkg/sub/a.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x = 1\n")
    assert {s.project for s in sources.find([tmp_path / "pkg"])} == {"pkg"}


def test_links_and_hidden_folders_are_left_out(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "loop").symlink_to(tmp_path)
    for folder in (".git", "__pycache__", "node_modules"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "b.py").write_text("x = 1\n")
    assert [s.path for s in sources.find([tmp_path])] == ["a.py"]


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        sources.find([tmp_path / "absent"])
    with pytest.raises(InputError, match="no Python file"):
        sources.find([tmp_path])
