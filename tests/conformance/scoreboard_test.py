"""The scoreboard page: its content, and its display in a browser."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re

import pytest

from conformance import clauses, report, scoreboard
from tests import page_checks
from tests.conformance import reports


def column(name: str, **changes) -> scoreboard.Column:
    values = {
        "name": name,
        "title": f"Tool {name}",
        "note": "as it comes",
        "kind": "feature_vector",
        "code": "model.save(folder)",
        "report": reports.FAULTY,
    }
    return scoreboard.Column(**{**values, **changes})


# Reports of different lengths, a model that was not built, and more columns than fit
# on a phone.
BOARD = scoreboard.Scoreboard(
    title="Which of them?",
    made_by="tools/scoreboard",
    versions={"python": "3.12.4", "tensorflow": "2.21.0"},
    columns=(
        column("clean", report=reports.CLEAN, kind="classification"),
        column("absent", report=None, problem="keras_cv was not installed"),
        *(column(f"faulty_{number}") for number in range(8)),
    ),
)


class Reader(html.parser.HTMLParser):
    """Parses a page into its tags and the cells of the matrix, by their links."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: dict[str, tuple[str, str]] = {}
        self._cell = ("", "")
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "td":
            self._cell = (values.get("class", ""), "")
        elif tag == "a" and "data-model" in values:
            self._cell = (self._cell[0], values["href"])

    def handle_data(self, data):
        status, link = self._cell
        if link and link not in self.cells:
            self.cells[link] = (status, data)


def test_each_clause_has_a_cell_for_each_model():
    cells = Reader(scoreboard.render(BOARD)).cells
    assert len(cells) == 2 + 8 * len(reports.FAULTY.clauses)
    assert cells["#R01.clean"] == ("pass", "Pass")
    assert cells["#R04.faulty_0"] == ("fail", "Fail")
    assert cells["#S02.faulty_7"] == ("warn", "Warn")
    assert cells["#Z99.faulty_0"] == ("not_applicable", "n/a")
    assert "#R04.clean" not in cells


def test_each_link_of_the_page_leads_to_one_place():
    tags = Reader(scoreboard.render(BOARD)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    links = {attributes["href"] for tag, attributes in tags if tag == "a"} - {"#"}
    assert len(ids) == len(set(ids))
    assert links <= {f"#{name}" for name in ids}


def test_the_first_row_sums_up():
    text = re.sub("<svg.*?</svg>", "", scoreboard.render(BOARD))
    assert text.count("3 fail</span>") == 8
    assert text.count("None fail</span>") == 1
    assert "<b>Not checked</b><br>keras_cv was not installed" in text


def test_the_same_findings_are_told_once():
    (row,) = (row for row in scoreboard._rows(BOARD.columns) if row.id == "R01")
    assert [[cell.column.name for cell in cells] for cells in row.findings] == [
        ["clean"],
        [f"faulty_{number}" for number in range(8)],
    ]
    text = scoreboard.render(BOARD)
    assert text.count("all 518 captured variables in root.") == 1
    assert text.count(clauses.BY_ID["R04"].text) == 2  # in the matrix, and below


def test_the_worst_is_told_first():
    results = [reports.result("R01", status, status) for status in report.STATUSES]
    columns = tuple(
        column(
            f"c{number}", report=dataclasses.replace(reports.CLEAN, clauses=(result,))
        )
        for number, result in enumerate(results)
    )
    (row,) = scoreboard._rows(columns)
    assert [cells[0].status for cells in row.findings] == [
        "fail",
        "warn",
        "pass",
        "not_applicable",
    ]


def test_a_scoreboard_is_read_back():
    record = json.loads(json.dumps(BOARD.to_json()))
    assert scoreboard.render(scoreboard.from_json(record)) == scoreboard.render(BOARD)


def test_one_without_columns_or_reports_is_a_page():
    for columns in ((), BOARD.columns[1:2]):
        text = scoreboard.render(dataclasses.replace(BOARD, columns=columns))
        assert "</html>" in text


def test_text_of_unknown_origin_stays_text():
    hostile = reports.HOSTILE + "\ud800\x85\u2028"
    hostile_report = report.Report(
        path=hostile, kind=hostile, clauses=(reports.result("R01", "fail", hostile),)
    )
    values = {"title": hostile, "note": hostile, "kind": hostile, "code": hostile}
    text = scoreboard.render(
        scoreboard.Scoreboard(
            title=hostile,
            made_by=hostile,
            versions={hostile: hostile},
            columns=(
                column("a", report=hostile_report, **values),
                column("b", report=None, problem=hostile, **values),
            ),
        )
    )
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e]", text)
    assert [tag for tag, _ in Reader(text).tags].count("script") == 1


def test_the_page_needs_nothing_else():
    text = scoreboard.render(BOARD)
    for tag, attributes in Reader(text).tags:
        assert "src" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith(("#", "data:,")), attributes
    assert "url(" not in text


# Display in a browser.


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "scoreboard.html"
    path.write_text(scoreboard.render(BOARD), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [1280, 800, 360])
def test_the_matrix_scrolls_and_the_page_does_not(page, url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(url)
    assert page_checks.too_wide(page, boxes=".matrix, pre") == []
    head, first = page.evaluate("""(() => {
        const box = document.querySelector(".matrix");
        box.scrollTo(10000, 1000);
        const at = (selector) => {
          const {left, top} = document.querySelector(selector).getBoundingClientRect();
          return [left, top];
        };
        const [left, top] = at(".matrix");
        const head = at("thead th:last-child")[1] - top;
        const first = at("tr[data-clause=C01] th")[0] - left;
        return [head, first];
    })()""")
    assert (head, first) == (1, 1)  # the border of the box
    assert page_checks.complaints(page, url) == []


@pytest.mark.parametrize("width", [1280, 360])
def test_a_cell_shows_what_was_found(page, url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(url)
    link = "document.querySelector('a[href=\"#R04.faulty_3\"]')"
    page.evaluate(f"{link}.click()")
    panel_text = " ".join(
        page.evaluate("document.getElementById('panel').innerText").split()
    )
    assert panel_text.startswith("R04 Fail · Tool faulty_3, features")
    assert clauses.BY_ID["R04"].text in panel_text
    assert "518 captured variables in root.variables OBSERVED 2 missing" in panel_text
    assert page_checks.too_wide(page, boxes=".matrix, pre") == []
    page.evaluate("document.querySelector('#panel button').click()")
    assert page.evaluate("document.getElementById('panel').hidden")
    assert page_checks.complaints(page, url) == []


def test_the_keyboard_reaches_the_cells(page, url):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(url)
    page.evaluate("document.querySelector('a[href=\"#R04.faulty_3\"]').focus()")
    heading = (
        "document.querySelector('#panel .heading').innerText.replace(/\\s+/g, ' ')"
    )
    assert page.evaluate(heading).startswith("R04 Fail · Tool faulty_3")
    press = """document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", {key: "%s", bubbles: true}))"""
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.evaluate(press % key)
    assert page.evaluate(heading).startswith("R06 Fail · Tool faulty_4")
    page.evaluate(press % "Escape")
    assert page.evaluate("document.getElementById('panel').hidden")
    assert page_checks.complaints(page, url) == []


def test_without_scripts_links_lead_to_what_was_found(chromium, url):
    with chromium.new_page(java_script_enabled=False) as page:
        page.goto(f"{url}#R04.faulty_3")
        top = "document.getElementById('R04.faulty_3').getBoundingClientRect().top"
        assert 0 <= page.evaluate(top) < 800


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_text_stands_out_from_its_background(page, url, scheme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(url)
    page.evaluate("document.querySelector('td.fail a').click()")
    contrasts = page_checks.contrasts(page)
    assert len(contrasts) > 500
    assert [contrast for contrast in contrasts if contrast[0] < 4.5] == []
    is_dark = [background < 0.2 for *_, background in contrasts]
    assert all(is_dark) if scheme == "dark" else not any(is_dark)
