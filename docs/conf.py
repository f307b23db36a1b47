"""How ``make docs`` builds these pages. Nothing is fetched while they are built, or by a browser that shows them."""

import ast
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

project = "saliency_entropy"
author = copyright = "The saliency_entropy developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
html_static_path, html_css_files = ["_static"], ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style, pygments_dark_style = "friendly", "monokai"
exclude_patterns = ["_build", "guide/tutorial"]  # built pages, and what a run of the tutorial leaves
nb_execution_mode = "off"  # the tutorial is shown with the outputs that are stored in it

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
autodoc_inherit_docstrings = False
napoleon_google_docstring, napoleon_numpy_docstring = True, False
html_math_renderer = "mathml"
nitpick_ignore_regex = [  # without these, a reference that leads nowhere is a warning
    (
        r"py:.*",
        r"(torch|numpy|pandas|pathlib|collections|pytorch_lightning)\..*",
    ),  # their pages would have to be fetched
    # Of the package, what a reader of the code is told of, but these pages leave out.
    (r"py:.*", r"UserError|HumanMaps|table_problems|file_problems|[A-Z_]+"),
    (
        r"py:.*",
        r"saliency_entropy\.(data\.(cache|group_names|human_maps|images|listed_files|loaders|table)|scores|weights)\b.*",
    ),
    (r"py:.*", r"saliency_entropy\.study\.((bootstrap|contrasts|error_tables|run_figures)\..*|figures\.Figure)"),
]


class CommandDirective(SphinxDirective):
    """What a script says of itself (its docstring, which is Markdown), and the configuration that it reads."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        script = ROOT / "experiments" / f"{self.arguments[0]}.py"
        self.env.note_dependency(script)
        tree = ast.parse(script.read_text())
        main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
        configuration = main.decorator_list[0].args[0].value
        if configuration != script.stem and (script.with_name(f"{configuration}.py")).exists():
            shown = f"Its configuration is that of [{configuration}](#{configuration})."
        else:
            shown = included(configuration)
        return self.parse_text_to_nodes(f"{as_markdown(ast.get_docstring(tree) or '')}\n\n{shown}")


class GroupDirective(SphinxDirective):
    """Every file of a group of the configuration."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = ROOT / "conf" / self.arguments[0]
        self.env.note_dependency(folder)
        files = sorted(folder.glob("*.yaml"))
        return self.parse_text_to_nodes("\n\n".join(included(f"{self.arguments[0]}/{file.stem}") for file in files))


def as_markdown(docstring: str) -> str:
    """A script's docstring, with what Markdown would take for markup escaped, except in the indented calls."""
    lines = docstring.splitlines()
    return "\n".join(
        line if line.startswith("    ") else line.replace("<", "\\<").replace("_", "\\_") for line in lines
    )


def included(configuration: str) -> str:
    """The directive that shows a file of conf/ under its name."""
    path = f"/../conf/{configuration}.yaml"
    return f"```{{literalinclude}} {path}\n:language: yaml\n:caption: conf/{configuration}.yaml\n```"


def show_inline_math(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def show_block_math(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math-block">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_directive("command", CommandDirective)
    app.add_directive("group", GroupDirective)
    # MathML, which browsers show by themselves: Sphinx's own renderers need another server or LaTeX.
    app.add_html_math_renderer("mathml", (show_inline_math, None), (show_block_math, None))
