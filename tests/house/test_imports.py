"""The order of the house: imports point one way, and the command line starts without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "simdistill"

# A room may import from itself and from the rooms above it in this list; so may a module of `method/` in its own list.
ROOMS = [
    {"support"},
    {"method", "web"},
    {"config"},
    {"runs", "networks", "data"},
    {"teachers"},
    {"training", "evaluation"},
    {"reports"},
    {"workflows"},
    {"comparison", "gallery", "demo", "study"},  # leaves
    {"commands"},
    {"cli", "api"},
    {"__init__", "__main__"},
]
METHOD = [
    {"text", "ema", "metrics"},
    {"shapes"},
    {"distances", "noise", "preconditioning"},
    {"weightings", "denoisers"},
    {"generator", "objectives", "guidance", "samplers"},
    {"algorithm"},
]
# … except that these know nothing of each other.
LEAVES = {"comparison", "gallery", "demo", "study"}
STRANGERS = {
    "training": {"evaluation"},
    "evaluation": {"training"},
    "networks": {"config", "runs", "data"},
    "data": {"runs", "networks"},
    "runs": {"networks", "data"},
    **{leaf: LEAVES - {leaf} for leaf in LEAVES},
}
DEPTH = {name: depth for depth, names in enumerate(ROOMS) for name in names}
INSIDE = {name: depth for depth, names in enumerate(METHOD) for name in names}


def room(module):
    """The top-level name below the package of a dotted module: "simdistill.teachers.weights" is in "teachers"."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(tree):
    """The dotted modules of the package that a syntax tree imports, wherever in it the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "simdistill")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield f"simdistill.{'.' * node.level}"  # a relative import is in no layer
        elif isinstance(node, ast.ImportFrom) and node.module == "simdistill":
            yield from (f"simdistill.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "simdistill":
            yield node.module


def violations(module, source):
    """What is wrong with the imports of a module, as sentences."""
    tree, here, wrong = ast.parse(source), room(module), []
    if here not in DEPTH:
        return [f"{module} has no place yet: give {here} one in ROOMS"]
    for target in imports(tree):
        there = room(target)
        if there not in DEPTH:
            wrong.append(f"{module} imports {target}, which is in no room")
        elif there != here and (DEPTH[there] > DEPTH[here] or there in STRANGERS.get(here, ())):
            wrong.append(f"{module} imports {target}: {here} must not know {there}")
        elif here == there == "method" and INSIDE[target.split(".")[2]] >= INSIDE[module.split(".")[2]]:
            wrong.append(f"{module} imports {target}, which is not above it in METHOD")
    names = {getattr(node, "id", None) or getattr(node, "attr", None) for node in ast.walk(tree)}
    aliases = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    if "TYPE_CHECKING" in names | aliases:
        wrong.append(f"{module} escapes by TYPE_CHECKING")
    return wrong


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_one_way(module, path):
    assert violations(module, path.read_text()) == []


def test_the_walk_finds_the_modules_and_their_imports():
    found = dict(modules())
    assert {"simdistill", "simdistill.method.algorithm", "simdistill.networks"} <= found.keys()
    tree = ast.parse(found["simdistill.method.algorithm"].read_text())
    assert {f"simdistill.method.{name}" for name in ("denoisers", "objectives", "noise")} <= set(imports(tree))


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("simdistill.method.noise", "from simdistill.method.shapes import like", 0),
        ("simdistill.method.shapes", "from simdistill.method.noise import sample", 1),
        ("simdistill.method.shapes", "def late():\n    import simdistill.method.noise", 1),
        ("simdistill.method.noise", "from simdistill.config.recipes import Recipe", 1),
        ("simdistill.support.files", "from simdistill import method, support", 1),
        (
            "simdistill.training.ema",
            "from simdistill.training.state import x\nfrom simdistill.config.recipes import y",
            0,
        ),
        ("simdistill.training.ema", "import simdistill.evaluation.metrics", 1),
        ("simdistill.evaluation.metrics", "from simdistill.training import ema", 1),
        ("simdistill.networks.mlp", "from simdistill.config.recipes import Recipe", 1),
        ("simdistill.networks.mlp", "from simdistill.method.denoisers import Denoiser", 0),
        ("simdistill.commands.distill", "from simdistill import Teacher", 1),
        ("simdistill.method.noise", "from . import shapes", 1),
        ("simdistill.attic", "", 1),
        ("simdistill.method.noise", "from typing import TYPE_CHECKING", 1),
        ("simdistill.method.noise", "import typing\nif typing.TYPE_CHECKING:\n    pass", 1),
        ("simdistill.method.noise", "import torch\nfrom simdistillery import x", 0),
    ],
)
def test_the_rules_catch_what_they_forbid(module, source, count):
    assert len(violations(module, source)) == count


def loaded_by(statement):
    """The modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_the_command_line_starts_without_torch():
    """Two seconds of it: --help and a mistyped option are answered at once."""
    modules = loaded_by("import simdistill.cli")
    assert "simdistill.cli" in modules
    assert not modules & {"torch", "sklearn", "matplotlib", "scipy"}


def test_the_mathematics_loads_no_library_that_only_commands_need():
    modules = loaded_by("import simdistill.method.algorithm")
    assert "torch" in modules
    assert not modules & {"sklearn", "matplotlib", "tyro", "rich", "pydantic", "jinja2"}
