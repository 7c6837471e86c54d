"""Links in the project's Markdown; the site's own check needs Sphinx and is slow."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def anchors(page: pathlib.Path) -> set[str]:
    """The headings of a page as GitHub and Sphinx name them, and its own anchors."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.S | re.M)
    found = set(re.findall(r'\bid="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.M):
        words = re.sub(r"\]\([^)]*\)|[^\w\- ]", "", heading).strip().lower()
        found.add(words.replace(" ", "-"))
    return found


def test_every_link_leads_to_a_file_and_its_heading():
    links = [
        (page, *link)
        for page in PAGES
        for link in re.findall(
            r"\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")
        )
    ]
    assert len(links) > 500
    known = {page: anchors(page) for page in PAGES}
    broken = []
    for page, name, anchor in links:
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (
            anchor and anchor not in known.get(target, {anchor})
        ):
            broken.append(f"{page.relative_to(ROOT)}: {name}#{anchor}")
    assert broken == []
