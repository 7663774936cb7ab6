"""The order of the house: imports point one way, and the command line starts without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "simdistill"

# A module, or a package with all it holds, may import from its own layer and from those above it in this list.
LAYERS = [
    {"validation", "files", "libraries", "serving"},
    {"shapes", "averages", "text"},
    {"distances", "noise", "scalings"},
    {"weightings", "denoisers"},
    {"generator", "objectives", "guidance"},
    {"distill"},
    {"recipes", "sampling", "configuration"},
    {"runs", "options", "logs"},
    {"networks", "data"},
    {"teachers"},
    {"training", "evaluation", "study"},
    {"workflows"},
    {"comparison", "gallery", "demo"},
    {"commands"},
    {"cli"},
    {"__init__", "__main__"},
]
# … except that these know nothing of each other.
STRANGERS = {
    "training": {"evaluation", "study"},
    "evaluation": {"training", "study"},
    "study": {"training"},
    "comparison": {"gallery", "demo"},
    "gallery": {"comparison", "demo"},
    "demo": {"comparison", "gallery"},
    "networks": {"generator", "objectives", "distill", "recipes", "sampling", "configuration", "runs", "logs", "data"},
    "data": {"generator", "objectives", "distill", "recipes", "sampling", "configuration", "runs", "logs", "networks"},
}
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}


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
    if here not in LAYER:
        return [f"{module} has no layer yet: give {here} a place in LAYERS"]
    for target in imports(tree):
        there = room(target)
        if there not in LAYER:
            wrong.append(f"{module} imports {target}, which is in no layer")
        elif there != here and (LAYER[there] > LAYER[here] or there in STRANGERS.get(here, ())):
            wrong.append(f"{module} imports {target}: {here} must not know {there}")
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
    assert {"simdistill", "simdistill.distill", "simdistill.teachers.weights", "simdistill.networks"} <= found.keys()
    tree = ast.parse(found["simdistill.distill"].read_text())
    assert {"simdistill.denoisers", "simdistill.objectives", "simdistill.noise"} <= set(imports(tree))


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("simdistill.noise", "from simdistill.shapes import like", 0),
        ("simdistill.shapes", "from simdistill.noise import sample", 1),
        ("simdistill.shapes", "def late():\n    import simdistill.noise", 1),
        ("simdistill.shapes", "from simdistill import noise, validation", 1),
        ("simdistill.training.ema", "from simdistill.training.state import x\nfrom simdistill.recipes import y", 0),
        ("simdistill.training.ema", "import simdistill.evaluation.metrics", 1),
        ("simdistill.evaluation.metrics", "from simdistill.training import ema", 1),
        ("simdistill.networks.mlp", "from simdistill.recipes import Recipe", 1),
        ("simdistill.networks.mlp", "from simdistill.denoisers import Denoiser", 0),
        ("simdistill.commands.distill", "from simdistill import Teacher", 1),
        ("simdistill.noise", "from . import shapes", 1),
        ("simdistill.attic", "", 1),
        ("simdistill.noise", "from typing import TYPE_CHECKING", 1),
        ("simdistill.noise", "import typing\nif typing.TYPE_CHECKING:\n    pass", 1),
        ("simdistill.noise", "import torch\nfrom simdistillery import x", 0),
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
    modules = loaded_by("import simdistill.distill")
    assert "torch" in modules
    assert not modules & {"sklearn", "matplotlib", "tyro", "rich", "pydantic", "jinja2"}
