"""Sphinx configuration: `make docs` builds with warnings as errors, without network."""

import importlib
import inspect
import operator
from pathlib import Path

import agop

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"

project = "agop"
author = "The agop developers"
copyright = "2026, The agop developers"
release = version = agop.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "matplotlib.sphinxext.plot_directive",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

# ------------------------------------------------------------------------- pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
numpydoc_show_class_members = False
extlinks = {  # for the References of docstrings
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
    "doi": ("https://doi.org/%s", "doi:%s"),
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --------------------------------------------------------- figures inside a page
plot_formats = [("png", 120)]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_pre_code = ""

# ----------------------------------------------------------------------- gallery
sphinx_gallery_conf = {
    "examples_dirs": str(EXAMPLES),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "doc_module": ("agop",),
    "reference_url": {"agop": None},
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

# ------------------------------------------------------------------------- theme
html_theme = "pydata_sphinx_theme"
html_title = f"agop {release}"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

# --------------------------------------------------------------------------- API
# The reference is written from the lists `__all__`, so that no public name can be
# missing: first the names of agop itself by room, then the parts of rooms below it.
ROOMS = {
    "core": "Average gradient outer products",
    "rfm": "Recursive feature machines",
    "networks": "Networks",
    "concepts": "Concept directions",
    "dictionaries": "Sparse autoencoders",
    "inspection": "Displays and reports",
    "datasets": "Data",
}
PARTS = {
    "networks": "Results of functions on networks",
    "core": "Accumulators, bootstrap, warnings and errors",
    "kernels": "Kernels and metrics",
    "solvers": "Solvers",
}


def members(package):
    """Names of the public classes and functions of a package, and its modules'."""
    known = package.__all__
    for name in known:
        thing = getattr(package, name)
        if inspect.ismodule(thing):
            yield from (f"{name}.{each}" for each in thing.__all__ if each not in known)
        elif inspect.isclass(thing) or inspect.isfunction(thing):
            yield name


def room_of(name):
    thing = operator.attrgetter(name)(agop)
    return thing.__module__.split(".")[1]


def section(title, names):
    lines = [title, "-" * len(title), "", ".. autosummary::", "   :toctree: generated"]
    return [*lines, "", *(f"   {name}" for name in names), ""]


def write_api_index(folder):
    """Write ``index.rst``: one table of public names for each room."""
    lines = ["API", "===", "", ".. currentmodule:: agop", ""]
    front = list(members(agop))
    for room, title in ROOMS.items():
        if names := [name for name in front if room_of(name) == room]:
            lines += section(title, names)
    for room, title in PARTS.items():
        package = importlib.import_module(f"agop.{room}")
        names = [name for name in members(package) if name not in front]
        lines += section(title, [f"{room}.{name}" for name in names])
    text = "\n".join(lines)
    folder.mkdir(exist_ok=True)
    path = folder / "index.rst"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


write_api_index(HERE / "api")
