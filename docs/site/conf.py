"""How Sphinx makes the site of docs/: tools/docs --site=DIR."""

from pygments.lexers.python import PythonLexer
from sphinx import application

project = "Image model zoo"
author = "the contributors of the image model zoo"
copyright = author  # noqa: A001 - Sphinx's name
extensions = ["myst_nb"]
nb_execution_mode = "off"  # notebooks are shown as tools/tutorials ran them
exclude_patterns = ["records", "site"]
myst_heading_anchors = 2

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


def setup(app: application.Sphinx) -> None:
    """Gin files are coloured as Python, which they are alike."""
    app.add_lexer("gin", PythonLexer)
