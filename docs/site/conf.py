"""How Sphinx makes the site of docs/: tools/docs --site=DIR."""

import re

from docutils import nodes
from pygments.lexers.python import PythonLexer
from sphinx import addnodes, application
from sphinx.transforms import SphinxTransform

project = "Image model zoo"
author = "the contributors of the image model zoo"
copyright = author  # noqa: A001 - Sphinx's name
extensions = ["myst_nb"]
nb_execution_mode = "off"  # notebooks are shown as tools/tutorials ran them
exclude_patterns = ["records", "site"]
myst_heading_anchors = 6
smartquotes_action = "qe"  # not of dashes: "--weights" in a text is a flag

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["zoo.css"]
html_js_files = ["archs.js"]
html_extra_path = ["../scoreboard.html"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2b579f",
        "color-brand-content": "#2b579f",
        "color-brand-visited": "#2b579f",
        "font-stack": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', "
        "Arial, 'DejaVu Sans', sans-serif",
    },
    "dark_css_variables": {
        "color-brand-primary": "#92b6f2",
        "color-brand-content": "#92b6f2",
        "color-brand-visited": "#92b6f2",
    },
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"


class HtmlAnchors(SphinxTransform):
    """Makes `<a id="NAME"` in Markdown a target of links, and an entry of the index.

    Without it Sphinx warns of links to such an anchor. The search shows the entries of
    the index, with links to their anchors.
    """

    default_priority = 800  # before the domains of Sphinx collect targets and entries

    def apply(self) -> None:
        for node in list(self.document.findall(nodes.raw)):
            if match := re.match(r'<a id="([^"]+)"', node.astext()):
                name = match[1]
                self._rename_section(name)
                node["ids"], node["names"] = [name], [name]
                self.document.note_explicit_target(node, node)
                entry = ("single", name, name, "main", None)
                node.parent.insert(
                    node.parent.index(node), addnodes.index(entries=[entry])
                )

    def _rename_section(self, name: str) -> None:
        """Gives a section with the anchor's name, such as AlexNet's, another one."""
        section = self.document.ids.pop(name, None)
        if section is not None:
            section["ids"] = [f"{name}-section"]
            section["names"] = []
            self.document.nameids.pop(name, None)
            self.document.nametypes.pop(name, None)
            self.document.ids[f"{name}-section"] = section


def setup(app: application.Sphinx) -> None:
    """Adds the anchors of archs; colours gin files as Python, which they are alike."""
    app.add_transform(HtmlAnchors)
    app.add_lexer("gin", PythonLexer)
