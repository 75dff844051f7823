"""Sphinx configuration: `make docs` builds with warnings as errors, without network."""

import inspect
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
    "ignore_pattern": r"__init__\.py$",
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
# The reference is written from agop.__all__, so that no public name can be missing.
ROOMS = {
    "core": "Average gradient outer products",
    "rfm": "Recursive feature machines",
    "networks": "Networks",
    "concepts": "Concept directions",
    "dictionaries": "Sparse autoencoders",
    "inspection": "Displays and reports",
    "kernels": "Kernels and metrics",
    "solvers": "Solvers",
    "datasets": "Data",
}


def public_names():
    """Pairs (room, dotted name below agop) of every public class and function."""
    for name in agop.__all__:
        thing = getattr(agop, name)
        if inspect.ismodule(thing):
            for member in thing.__all__:
                yield thing.__name__.split(".")[1], f"{name}.{member}"
        elif callable(thing):
            yield thing.__module__.split(".")[1], name


def write_api_index(folder):
    """Write ``index.rst``: one table of public names for each room."""
    lines = ["API", "===", "", ".. currentmodule:: agop", ""]
    names = sorted(public_names(), key=lambda pair: list(ROOMS).index(pair[0]))
    previous = None
    for room, name in names:
        if room != previous:
            lines += [ROOMS[room], "-" * len(ROOMS[room]), ""]
            lines += [".. autosummary::", "   :toctree: generated", ""]
        lines.append(f"   {name}")
        follower = names[names.index((room, name)) + 1 :][:1]
        if not follower or follower[0][0] != room:
            lines.append("")
        previous = room
    text = "\n".join(lines)
    folder.mkdir(exist_ok=True)
    path = folder / "index.rst"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


write_api_index(HERE / "api")
