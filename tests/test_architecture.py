"""Who may import whom, and other rules of docs/development/architecture.md.

Each rule is a function from the syntax tree of one module to a list of complaints.
``COMPLAINTS`` at the end holds a bad example for every rule, so that each can fail.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "agop"

# Which rooms a room may import. A new room is added here and in the document.
ALLOWED = {
    "core": set(),
    "kernels": {"core"},
    "solvers": {"core"},
    "rfm": {"core", "kernels", "solvers"},
    "networks": {"core"},
    "dictionaries": {"core"},
    "concepts": {"core", "networks", "rfm"},
    "datasets": {"core"},
}
ALLOWED["inspection"] = set(ALLOWED)
ALLOWED["demonstration"] = {"datasets", "inspection", "networks", "rfm"}
# The front doors: they import public names, and no room imports them.
FRONT_DOORS = {"__init__", "__main__"}

# Declared in pyproject.toml as dependencies; imported where a module begins.
REQUIRED = {"numpy", "scipy", "sklearn", "torch"}
# Imported inside the function that needs them, and nowhere else.
OPTIONAL = {
    "IPython",
    "matplotlib",
    "mpl_toolkits",
    "pandas",
    "polars",
    "rich",
    "safetensors",
    "skops",
}
DRAWING = {"matplotlib", "mpl_toolkits"}
DRAWING_MODULE = "agop/inspection/displays.py"

# Where scikit-learn's public names may be used.
SKLEARN_FILE_NAMES = {"estimators.py", "estimator.py", "autoencoder.py"}
SKLEARN_PATHS = {
    "agop/core/arrays.py",
    "agop/networks/base.py",
    "agop/rfm/base.py",
    "agop/core/progress.py",
    "agop/networks/conversion.py",
    "agop/networks/sources.py",
}
SKLEARN_FOLDERS = (
    "agop/concepts/",
    "agop/datasets/",
    "agop/demonstration/",
    "agop/inspection/",
)

MAX_LINES = 500


class Import(NamedTuple):
    """One imported name; ``target`` is dotted, e.g. ``agop.core.arrays.as_tensor``."""

    target: str
    line: int
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING:`
    relative: bool

    @property
    def top(self):
        return self.target.partition(".")[0]


class Module:
    """The path (from the root, with slashes), the source and the tree of one file."""

    def __init__(self, path, source):
        self.path = path
        self.source = source
        self.tree = ast.parse(source)
        self.imports = list(_imports(self.tree))

    @property
    def name(self):
        """Dotted, with the ``__init__`` of a package called as the package."""
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def room(self):
        return self.path.removesuffix(".py").split("/")[1]


def _imports(node, in_function=False, for_types=False):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, in_function, for_types, False)
        elif isinstance(child, ast.ImportFrom):
            relative = child.level > 0
            for alias in child.names:
                target = ".".join(filter(None, [child.module, alias.name]))
                yield Import(target, child.lineno, in_function, for_types, relative)
        else:
            function = ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda
            guard = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(
                child.test
            )
            yield from _imports(
                child,
                in_function or isinstance(child, function),
                for_types or guard,
            )


def _imported_room(target):
    """The room of ``agop.room.module.name``; the front door if there is no room."""
    parts = target.split(".")
    if parts[0] != PACKAGE:
        return None
    room = parts[1] if len(parts) > 1 else "__init__"
    return room if room in ALLOWED or room in FRONT_DOORS else "__init__"


# --------------------------------------------------------------------------- rules
def rooms(module):
    """Rule 1: a room imports only the rooms below it."""
    if module.room in FRONT_DOORS:
        return
    if module.room not in ALLOWED:
        yield f"'{module.room}' is not a room of the architecture document"
        return
    for imported in module.imports:
        room = _imported_room(imported.target)
        if room in FRONT_DOORS:
            yield f"line {imported.line}: {module.room} imports the front door"
        elif room is not None and room not in ALLOWED[module.room] | {module.room}:
            yield f"line {imported.line}: {module.room} may not import {room}"


def absolute(module):
    """Imports are absolute."""
    for imported in module.imports:
        if imported.relative:
            yield f"line {imported.line}: relative import"


def position(module):
    """Rule 2: imports stand at the top, except those of optional packages."""
    for imported in module.imports:
        if imported.in_function and imported.top not in OPTIONAL:
            yield f"line {imported.line}: {imported.target} imported inside a function"


def dependencies(module):
    """Only declared dependencies; in particular no other library of this field."""
    for imported in module.imports:
        top = imported.top
        known = top == PACKAGE or top in REQUIRED or top in sys.stdlib_module_names
        if not imported.relative and not known and top not in OPTIONAL:
            yield f"line {imported.line}: {top} is not a declared dependency"
        elif top in OPTIONAL and not (imported.in_function or imported.for_types):
            yield f"line {imported.line}: {top} imported outside a function"


def drawing(module):
    """Rule 3: matplotlib only in the displays."""
    for imported in module.imports:
        if imported.top in DRAWING and module.path != DRAWING_MODULE:
            yield f"line {imported.line}: matplotlib outside {DRAWING_MODULE}"


def sklearn_place(module):
    """Rule 3: scikit-learn only where an estimator is made, checked or shown."""
    if (
        module.path.rpartition("/")[2] in SKLEARN_FILE_NAMES
        or module.path in SKLEARN_PATHS
        or module.path.startswith(SKLEARN_FOLDERS)
    ):
        return
    for imported in module.imports:
        if imported.top == "sklearn":
            yield f"line {imported.line}: scikit-learn outside the estimator modules"


def sklearn_public(module):
    """Rule 3: scikit-learn's public names only."""
    names = {"sklearn"}  # local names bound to scikit-learn or a part of it
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {a.asname for a in node.names if a.name.startswith("sklearn.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "sklearn"
        ):
            names |= {a.asname or a.name for a in node.names}
    for imported in module.imports:
        if imported.top == "sklearn" and _private(imported.target.split(".")):
            yield f"line {imported.line}: private scikit-learn name {imported.target}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and _private([node.attr]):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in names:
                yield f"line {node.lineno}: private scikit-learn name {node.attr}"


def _private(parts):
    return any(part.startswith("_") and not part.startswith("__") for part in parts)


def silent(module):
    """No print, except in the command line."""
    if module.room == "__main__":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and node.id == "print":
            yield f"line {node.lineno}: print; use logging"


def no_assert(module):
    """Errors are raised: assertions vanish under ``python -O``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: assert; raise an error"


def short(module):
    """A file that outgrows the limit holds a second concept."""
    lines = module.source.count("\n")
    if lines > MAX_LINES:
        yield f"{lines} lines, more than {MAX_LINES}: did a second concept move in?"


RULES = [
    rooms,
    absolute,
    position,
    dependencies,
    drawing,
    sklearn_place,
    sklearn_public,
    silent,
    no_assert,
    short,
]


def cycles(modules):
    """Rule 2: the modules that import each other in a circle, as sorted name lists."""
    names = {module.name for module in modules}

    def resolve(target):
        while target and target not in names:
            target = target.rpartition(".")[0]
        return target

    graph = {
        module.name: {resolve(i.target) for i in module.imports} - {"", module.name}
        for module in modules
    }

    def reachable(start):
        found, todo = set(), [start]
        while todo:
            for name in graph[todo.pop()] - found:
                found.add(name)
                todo.append(name)
        return found

    below = {name: reachable(name) for name in graph}
    circles = {
        tuple(sorted(other for other in below[name] if name in below[other]))
        for name in graph
        if name in below[name]
    }
    return sorted(map(list, circles))


# ------------------------------------------------------------------- the library
MODULES = [
    Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_module_keeps_the_rules(module):
    complaints = [
        f"{module.path}: {complaint}" for rule in RULES for complaint in rule(module)
    ]
    assert not complaints, "\n".join(complaints)


def test_no_import_cycles():
    assert cycles(MODULES) == []


def test_required_are_the_declared_dependencies():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in REQUIRED - {"sklearn"} | {"scikit-learn"}:
        assert f'"{name}>=' in text


def test_the_library_was_found():
    assert f"{PACKAGE}/__init__.py" in {module.path for module in MODULES}


# --------------------------------------------------------- each rule can complain
COMPLAINTS = [
    (rooms, "agop/core/a.py", "from agop.kernels import profiles"),
    (rooms, "agop/core/a.py", "def f():\n    import agop.rfm"),
    (rooms, "agop/core/a.py", "from agop import kernels"),
    (rooms, "agop/kernels/a.py", "from agop.solvers.cholesky import solve"),
    (rooms, "agop/solvers/a.py", "from agop.kernels.operator import KernelOperator"),
    (rooms, "agop/rfm/a.py", "from agop.networks import jacobians"),
    (rooms, "agop/networks/a.py", "import agop.rfm.machine"),
    (rooms, "agop/dictionaries/a.py", "import agop.networks"),
    (rooms, "agop/concepts.py", "import agop.dictionaries"),
    (rooms, "agop/concepts.py", "from agop.inspection import displays"),
    (rooms, "agop/datasets/drawn.py", "from agop.rfm import machine"),
    (rooms, "agop/rfm/a.py", "from agop import RFMRegressor"),
    (rooms, "agop/inspection/report.py", "import agop"),
    (rooms, "agop/inspection/report.py", "from agop.demonstration import digits"),
    (rooms, "agop/inspection/report.py", "from agop import __main__"),
    (rooms, "agop/cellar/a.py", ""),
    (absolute, "agop/core/a.py", "from .arrays import as_tensor"),
    (absolute, "agop/core/a.py", "from . import arrays"),
    (position, "agop/rfm/a.py", "def f():\n    from agop.core import arrays"),
    (position, "agop/rfm/a.py", "class A:\n    def f(self):\n        import json"),
    (position, "agop/rfm/a.py", "async def f():\n    import torch"),
    (dependencies, "agop/rfm/a.py", "import xrfm"),
    (dependencies, "agop/dictionaries/a.py", "def f():\n    from sae_lens import SAE"),
    (dependencies, "agop/dictionaries/a.py", "try:\n    import rich\nexcept E: ..."),
    (dependencies, "agop/inspection/displays.py", "import matplotlib.pyplot as plt"),
    (drawing, "agop/inspection/report.py", "def f():\n    import matplotlib"),
    (drawing, "agop/rfm/a.py", "def f():\n    from mpl_toolkits import mplot3d"),
    (sklearn_place, "agop/kernels/a.py", "from sklearn.base import BaseEstimator"),
    (sklearn_place, "agop/solvers/a.py", "import sklearn"),
    (sklearn_public, "agop/rfm/estimators.py", "from sklearn.utils import _safe"),
    (sklearn_public, "agop/rfm/estimators.py", "import sklearn.utils._array_api"),
    (sklearn_public, "agop/rfm/estimators.py", "import sklearn\nsklearn.utils._x"),
    (
        sklearn_public,
        "agop/rfm/estimators.py",
        "from sklearn import utils as u\nu._x.y",
    ),
    (silent, "agop/core/a.py", "print('hello')"),
    (no_assert, "agop/core/a.py", "assert True"),
    (short, "agop/core/a.py", "\n" * 501),
]


@pytest.mark.parametrize(("rule", "path", "source"), COMPLAINTS)
def test_rule_complains(rule, path, source):
    assert list(rule(Module(path, source)))


def test_every_rule_has_a_bad_example():
    assert {rule for rule, _, _ in COMPLAINTS} == set(RULES)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("agop/__init__.py", "from agop.inspection.displays import AGOPDisplay"),
        ("agop/__main__.py", "import agop\nprint(agop)"),
        ("agop/concepts.py", "from agop.networks import jacobians"),
        ("agop/concepts.py", "from agop import networks, rfm"),
        ("agop/core/a.py", "from agop.core.linalg import psd_power"),
        ("agop/core/arrays.py", "from sklearn.utils import check_random_state"),
        ("agop/dictionaries/a.py", "def f():\n    import safetensors.torch"),
        (
            "agop/inspection/displays.py",
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from matplotlib.axes import Axes\n"
            "def plot():\n    import matplotlib.pyplot as plt",
        ),
        ("agop/rfm/estimators.py", "import sklearn\nsklearn.__version__"),
    ],
)
def test_good_example_passes(path, source):
    module = Module(path, source)
    assert [complaint for rule in RULES for complaint in rule(module)] == []


def test_cycle_is_found():
    bad = {
        "agop/core/a.py": "from agop.core import b",
        "agop/core/b.py": "from agop.core.c import f",
        "agop/core/c.py": "import agop.core.a",
        "agop/core/d.py": "import agop.core.a",
    }
    modules = [Module(path, source) for path, source in bad.items()]
    assert cycles(modules) == [["agop.core.a", "agop.core.b", "agop.core.c"]]
    assert cycles(modules[1:]) == []


def test_package_and_its_module_can_form_a_cycle():
    modules = [
        Module("agop/core/__init__.py", "from agop.core.a import f"),
        Module("agop/core/a.py", "from agop.core import g"),
    ]
    assert cycles(modules) == [["agop.core", "agop.core.a"]]
