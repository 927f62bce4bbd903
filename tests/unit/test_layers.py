"""The house: who may import whom (DESIGN §2). Imports inside functions count."""

import ast
import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "images", "hooks", "restore", "builder", "rescue")
MAY_IMPORT = {
    "core": {"core"},
    "images": {"core", "images"},
    "hooks": {"core", "images", "hooks"},
    "restore": {"core", "images", "hooks", "restore"},
    "builder": {"core", "images", "hooks", "builder"},
    "rescue": set(PACKAGES),
}
#: Modules that only one module of ours, or one folder, may import.
ONE_DOOR = {
    "dissect": "images/browse/",
    "subprocess": "core/process.py",
    "parted": "restore/table/table.py",
    "blkid": "images/signatures.py",
    "requests": "images/store/http.py",
    "obstore": "images/store/s3.py",
    "mfusepy": "restore/shrink/mount.py",
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_layers(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports(path)} & set(PACKAGES)
    assert ours <= MAY_IMPORT[own]


def test_faces_do_not_import_each_other() -> None:
    faces = ("cli", "tui", "serve")
    for path in FILES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == "rescue" and parts[1] in faces:
            others = {f"rescue.{face}" for face in faces if face != parts[1]}
            bad = {name for name in imports(path) if any(name.startswith(other) for other in others)}
            # The command line starts the wizard; that is the one arrow between faces.
            if path.name == "tui.py":
                bad -= {"rescue.tui.app"}
            assert not bad, path


@pytest.mark.parametrize("module", ONE_DOOR)
def test_one_door(module: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in FILES if module in {name.split(".")[0] for name in imports(path)}}
    door = ONE_DOOR[module]
    assert not {user for user in users if user != door and not (door.endswith("/") and user.startswith(door))}


def test_core_imports_only_the_standard_library_and_msgspec() -> None:
    allowed = set(sys.stdlib_module_names) | {"core", "msgspec"}
    for path in (ROOT / "core").rglob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


def test_only_the_tui_imports_textual() -> None:
    for path in FILES:
        if path.relative_to(ROOT).parts[:2] != ("rescue", "tui"):
            assert not {name for name in imports(path) if name.split(".")[0] in ("textual", "rich")}, path


def test_no_headless_module_loads_textual() -> None:
    headless = [
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
        for path in FILES
        if path.relative_to(ROOT).parts[:2] != ("rescue", "tui") and "data" not in path.parts
    ]
    program = (
        f"import importlib, sys\nfor name in {headless!r}:\n    importlib.import_module(name)\n"
        "print('textual' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("command", "heavy"),
    [("inspect", "dissect numpy requests"), ("preflight", "dissect numpy requests"), ("snapshots", "dissect numpy")],
)
def test_a_command_loads_no_library_that_it_may_not_need(command: str, heavy: str) -> None:
    """Every one of these costs as much as the rest of the start."""
    program = f"import sys, rescue.cli.{command}\nprint([name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_architecture_names_every_package_and_no_module_that_is_not_there() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    there = [path.relative_to(ROOT).as_posix() for path in (*FILES, *(ROOT / "tests").rglob("*.py"))]
    for named in re.findall(r"[\w*/]+\.py\b", text):
        assert any(fnmatch.fnmatch(f"/{path}", f"*/{named}") for path in there), named
    packages = {path.parent.relative_to(ROOT).as_posix() for path in FILES if path.name != "__init__.py"}
    assert [package for package in sorted(packages) if f"{package}/" not in text] == []


def test_root_inits_are_empty() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "__init__.py").read_text().strip() == ""


def test_no_module_is_named_after_nothing() -> None:
    bad = {"utils", "util", "helpers", "common", "misc"}
    assert not [path for path in FILES if path.stem in bad]
