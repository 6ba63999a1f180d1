"""The configuration of Sphinx: `make docs` builds these pages into target/site/html."""

from __future__ import annotations

import importlib.resources
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

import fastoptim

REPOSITORY = "https://github.com/fastoptim/fastoptim"
PACKAGE = Path(fastoptim.__file__).parent

project = "fastoptim"
author = "the fastoptim authors"
project_copyright = f"2025-2026, {author}"
version = release = fastoptim.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
# Names in backticks are links if the reference has them, and code otherwise.
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False
# Two pages whose names differ only by case would be one file on macOS and on Windows.
autosummary_filename_map = {
    f"fastoptim.landscape.{name}": f"fastoptim.landscape.{name}_function"
    for name in ("line", "plane")
}

# One file without requests to a server: formulas become SVG, offline and from file:// too.
_MATHJAX = importlib.resources.files("sphinx-mathjax-offline") / "static/mathjax/tex-svg-full.js"
mathjax_path = "tex-svg-full.js"
mathjax3_config = {
    "options": {"enableMenu": False},
    # For names of arguments: `\text{lr\_decay}`.
    "tex": {"packages": {"[+]": ["textmacros"]}},
}

html_theme = "pydata_sphinx_theme"
html_title = "fastoptim"
html_static_path = ["_static", str(_MATHJAX)]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False
# Pages without pages below them have nothing to show there.
html_sidebars = {page: [] for page in ("start", "differences", "internals", "benchmarks")}
html_theme_options = {
    "icon_links": [
        {
            "name": "GitHub",
            "url": REPOSITORY,
            "icon": "fa-brands fa-github",
        }
    ],
    "header_links_before_dropdown": 7,
    "navbar_align": "left",
    "navigation_with_keys": False,
    # The table of differences needs the width.
    "secondary_sidebar_items": {"**": ["page-toc"], "differences": []},
    "show_nav_level": 2,
    "search_bar_text": "Search",
    "footer_start": ["copyright"],
    "footer_end": [],
}


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of the source of a name of the package."""
    thing: Any = sys.modules[info["module"]]
    for name in info["fullname"].split("."):
        thing = getattr(thing, name, None)
    thing = inspect.unwrap(getattr(thing, "fget", thing))
    try:
        lines, first = inspect.getsourcelines(thing)
        path = Path(inspect.getfile(thing)).relative_to(PACKAGE.parent)
    except (OSError, TypeError, ValueError):  # Data, and what is inherited from other packages.
        return None
    return f"{REPOSITORY}/blob/main/python/{path.as_posix()}#L{first}-L{first + len(lines) - 1}"


def is_public(cls: type) -> bool:
    """Return whether a module of the package exports a class, as those of others do."""
    modules = [sys.modules[name] for name in list(sys.modules) if name.startswith("fastoptim")]
    return not cls.__module__.startswith("fastoptim") or any(
        cls.__name__ in getattr(module, "__all__", ()) and getattr(module, cls.__name__) is cls
        for module in modules
    )


def show_public_bases(
    app: Sphinx, name: str, obj: type, options: dict[str, Any], bases: list[type]
) -> None:
    """Replace private bases, which have no page, by the public classes that they derive from."""
    while private := [base for base in bases if not is_public(base)]:
        place = bases.index(private[0])
        bases[place : place + 1] = [b for b in private[0].__bases__ if b not in bases]
    plain = [base for base in bases if isinstance(base, type)]
    implied = [base for base in plain if sum(issubclass(other, base) for other in plain) > 1]
    bases[:] = [base for base in bases if base not in implied]


class LinkNames(SphinxPostTransform):
    """Links code in the text of the guides that is a public name, or a call of it, to its page.

    These are names with the prefix of the package, classes, and on the page of schedules functions.
    """

    default_priority = 5
    classes_of = (
        "fastoptim",
        "fastoptim.losses",
        "fastoptim.regularizers",
        "fastoptim.lr_scheduler",
    )

    def run(self, **kwargs: Any) -> None:
        """Link `fo.save`, `fo.schedules.cosine(...)`, and classes without a prefix."""
        if self.env.docname.startswith("reference/"):
            return
        classes_of = ("fastoptim.torch",) if self.env.docname == "pytorch" else self.classes_of
        objects = self.env.domains.python_domain.objects
        for code in list(self.document.findall(nodes.literal)):
            if isinstance(code.parent, nodes.reference | nodes.title):
                continue
            called = code.astext().partition("(")[0]
            name = re.sub(r"^(fo|fastoptim)\.", "", called)
            if name != called:
                known = [f"fastoptim.{name}"]
            elif name[:1].isupper():
                known = [f"{module}.{name}" for module in classes_of]
            else:  # The functions of the page of schedules, which has them without their module.
                known = [f"fastoptim.schedules.{name}"] if self.env.docname == "schedules" else []
            if found := next((objects[full] for full in known if full in objects), None):
                place = self.env.docname, found.docname, found.node_id
                code.replace_self(make_refnode(self.app.builder, *place, code.deepcopy()))


def setup(app: Sphinx) -> None:
    """Register the handler and the transform."""
    app.connect("autodoc-process-bases", show_public_bases)
    app.add_post_transform(LinkNames)
