"""The house rules of design section 7: packages, import arrows, sizes of modules and functions."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("ir", "compiler", "backends", "autotune", "specs", "mixc")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# A folder of the left may import from the folders of the right, and from itself.
MAY_IMPORT = {
    "ir": set(),
    "compiler": {"ir"},
    "backends": {"ir"},
    "specs": set(),
    "autotune": {"compiler", "backends", "ir"},
    "mixc": {"autotune", "backends", "compiler", "ir", "specs"},
}
# Rings of imports that still stand, each to be cut where it has a joint; this list only shrinks.
STANDING_RINGS = (
    (
        "ir.expression",
        "ir.mixer",
        "ir.rewriting",
        "ir.text",
    ),
)
MODULE_LINES = 500
FUNCTION_LINES = 60


def place(path: Path) -> tuple[str, ...]:
    """The dotted parts under ``mixc`` that a file installs as; the face's own have none before."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "mixc" else parts
    return parts[:-1] if parts[-1:] == ("__init__",) else parts


def targets(path: Path) -> list[tuple[str, ...]]:
    """The dotted parts under ``mixc`` of all that a module imports, anywhere in its text."""
    here = place(path)
    package = here if path.name == "__init__.py" else here[:-1]
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found += [name[1:] for name in names if name[0] == "mixc"]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            base += tuple((node.module or "").split(".")) if node.module else ()
            found += [(*base, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "mixc":
            base = tuple((node.module or "").split("."))[1:]
            found += [(*base, alias.name) for alias in node.names]
    return found


def imported(path: Path) -> set[str]:
    """The root folders of mixc that a module imports from, anywhere in its text."""
    return {t[0] if t[:1] and t[0] in MAY_IMPORT else "mixc" for t in targets(path)}


def graph_of_imports() -> networkx.DiGraph:
    """Which file imports which: inside functions and for type checkers too."""
    files = {place(path): path for path in MODULES}
    graph = networkx.DiGraph()
    for here, path in files.items():
        for target in targets(path):
            there = target if target in files else target[:-1]
            if there in files and there != here:
                graph.add_edge(".".join(here), ".".join(there))
    return graph


def test_no_circle_of_imports_spans_files():
    rings = networkx.strongly_connected_components(graph_of_imports())
    found = {" ".join(sorted(ring)) for ring in rings if len(ring) > 1}
    known = {" ".join(ring) for ring in STANDING_RINGS}
    assert not found - known, "a ring of imports: cut it at a joint"
    assert not known - found, "a ring that is gone: take it off the list"


def test_the_library_does_not_import_its_command_line():
    graph = graph_of_imports()
    reached = {"api", *networkx.descendants(graph, "api")}
    assert not {name for name in reached if name == "cli" or name.startswith("commands")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    folder = path.relative_to(ROOT).parts[0]
    allowed = MAY_IMPORT[folder] | {folder}
    assert imported(path) <= allowed, f"{folder} may import from {sorted(allowed)} only"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= FUNCTION_LINES
    }
    assert not long, f"functions over {FUNCTION_LINES} lines"


def test_every_package_is_listed_with_its_folder():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    in_tree = {}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            name = ".".join(("mixc", *place(init)))
            in_tree[name] = init.parent.relative_to(ROOT).as_posix()
    assert dict(sorted(settings["package-dir"].items())) == dict(sorted(in_tree.items()))
    assert sorted(settings["packages"]) == sorted(in_tree)


def test_every_module_is_in_a_package():
    homeless = {p.parent for p in MODULES if not (p.parent / "__init__.py").exists()}
    assert not homeless


def test_a_wheel_holds_every_module_and_spec(tmp_path):
    # Built from a copy: a build leaves its own files in the tree, and takes stale ones from it.
    tree = tmp_path / "tree"
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        tree.mkdir(exist_ok=True)
        copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(tmp_path), str(tree)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    held = {name for name in names if ".dist-info/" not in name}
    wanted = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in (".py", ".yaml", ".json", ".hpp", ".typed"):
                place_in = path.relative_to(ROOT).as_posix()
                wanted.add(place_in if folder == "mixc" else f"mixc/{place_in}")
    assert held == wanted


def test_constraints_pin_everything_once():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = [pin.split("==")[0].lower() for pin in pins]
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    assert len(set(names)) == len(names)
    assert {"torch==2.13.0", "triton==3.7.1"} <= set(pins)


def test_requirements_are_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    names = {re.split(r"[\[>;= ]", need)[0].lower() for need in wanted}
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").open()}
    assert names <= pinned


def test_the_tests_mirror_the_tree():
    strays = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        parts = path.relative_to(ROOT / "tests").parts[:-1]
        if parts and not (ROOT.joinpath(*parts)).is_dir():
            strays.append(str(path.relative_to(ROOT)))
    assert not strays
