"""HTML reports: their content, and their display in a browser."""

from __future__ import annotations

import dataclasses
import html.parser
import re

import pytest
from playwright import sync_api

from conformance import clauses, html_report, report
from tests import page_checks
from tests.conformance import reports

FAILURES = ["R04", "R06", "F03"]


class Reader(html.parser.HTMLParser):
    """Parses a page into its tags and the text of each cell of its rows."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, dict[str, str]] = {}
        self._cell: tuple[dict[str, str], str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "tr" and "data-status" in values:
            self.rows[values["id"]] = {"data-status": values["data-status"]}
        elif tag == "td":
            row = self.rows[list(self.rows)[-1]]
            name = values["class"].split()[0]
            row[name] = ""
            self._cell = (row, name)

    def handle_endtag(self, tag):
        if tag == "td":
            self._cell = None
        elif self._cell and tag in ("a", "dt", "dd"):
            self.handle_data("|")

    def handle_data(self, data):
        if self._cell:
            row, name = self._cell
            row[name] += data


def rendered(**changes) -> str:
    return html_report.render(dataclasses.replace(reports.FAULTY, **changes))


def observation_of(message: str, status: str = "fail") -> str:
    """Returns the observation that a page shows for a clause with this message."""
    result = reports.result("R04", status, message)
    return Reader(rendered(clauses=(result,))).rows["R04"]["observation"]


def test_a_row_has_all_of_its_clause():
    rows = Reader(rendered()).rows
    assert list(rows) == [result.id for result in reports.FAULTY.clauses]
    clause = clauses.BY_ID["R01"]
    assert rows["R01"] == {
        "data-status": "pass",
        "id": "R01|MUST",
        "text": clause.text + clause.source,
        "status": "Pass",
        "observation": "loaded; 2 functions of 2 signatures",
        "time": "11.4 s",
    }
    assert rows["Z99"]["text"].startswith("This version of the suite")


def test_groups_have_readable_names():
    text = rendered()
    for name in ("Reusable SavedModel", "Image input", "Pair", "Other clauses"):
        assert f"</b> {name}</th>" in text


@pytest.mark.parametrize(
    ("statuses", "headline"),
    [
        (["fail"], "1 MUST clause fails"),
        (["fail", "fail", "warn"], "2 MUST clauses fail"),
        (["pass", "warn"], "All checked MUST clauses pass; 1 SHOULD clause fails"),
        (["pass", "not_applicable"], "All checked MUST clauses pass"),
        (["not_applicable"], "No clause was checked"),
        ([], "No clause was checked"),
    ],
)
def test_the_verdict(statuses, headline):
    ids = list(clauses.BY_ID)
    results = [
        reports.result(ids[number], status) for number, status in enumerate(statuses)
    ]
    assert re.search(rf"<b>\s*{headline}\s*</b>", rendered(clauses=tuple(results)))


def test_counts_of_each_status():
    text = rendered()
    counted = dict(re.findall(r'data-status="(\w*)" aria-pressed.*?<b>(\d+)</b>', text))
    assert counted == {
        "": str(len(reports.FAULTY.clauses)),
        "fail": "3",
        "warn": "1",
        "pass": str(len(reports.FAULTY.clauses) - 10),
        "not_applicable": "6",
    }


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            f"R04 {reports.PATH}: expected a; observed b. To fix: c.",
            "Expected|a|Observed|b|To fix|c.|",
        ),
        (
            "R04 http://m: 1/x: expected a; observed b. To fix: c.",
            "Path|http://m: 1/x|Expected|a|Observed|b|To fix|c.|",
        ),
        (
            f"R04 {reports.PATH}: expected a; observed b; observed c. To fix: d. "
            "To fix: e\nf",
            "Expected|a|Observed|b; observed c. To fix: d|To fix|e\nf|",
        ),
        (f"R04 {reports.PATH}: raised Error: x", "Raised|Error: x|"),
        ("R04 …", "R04 …"),
        ("R04 m: expected a", "R04 m: expected a"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("status", ["fail", "warn"])
def test_a_message_is_taken_apart(message, shown, status):
    assert observation_of(message, status) == shown


def test_the_message_of_what_passed_is_left_whole():
    message = f"R04 {reports.PATH}: raised Error: x"
    assert observation_of(message, "pass") == message


def test_text_of_unknown_origin_stays_text():
    hostile = reports.HOSTILE + "\ud800\x85\u2028"
    sides = report.SizeRange(smallest=1, largest=2, step=3, stopped=hostile)
    text = html_report.render(
        report.Report(
            path=hostile,
            kind=hostile,
            clauses=(
                reports.result("R01", "fail", hostile),
                reports.result(hostile, "pass", hostile),
            ),
            measured=report.MeasuredSizes(
                base=(1, 1), sides={hostile: sides}, batch_sizes=(), stopped=hostile
            ),
            versions={hostile: hostile},
        )
    )
    text.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202a-\u202e]", text)
    assert "\\x1b[31m\\u202egnp.exe\\x00" in text
    assert "\\ud800\\x85\\u2028" in text
    assert [tag for tag, _ in Reader(text).tags].count("script") == 1
    assert "<script>document" not in text


def test_the_page_needs_nothing_beside_it():
    text = rendered()
    for tag, attributes in Reader(text).tags:
        assert "src" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert (attributes.get("href") or "#").startswith(("#", "data:,")), attributes
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_of_forty_clauses_is_small():
    long = reports.FAULTY.clauses[3]
    results = [dataclasses.replace(long, id=f"R{number}") for number in range(40)]
    text = rendered(clauses=tuple(results))
    assert text.count("Assign to root.variables") == 40
    assert len(text.encode()) < 120_000


def plotted(measured: tuple[int, int], documented: tuple[int | None, int | None]):
    sides = report.SizeRange(
        smallest=measured[0], largest=measured[1], step=1, stopped=""
    )
    changed = dataclasses.replace(
        reports.FAULTY,
        documented={"height_range": documented},
        measured=dataclasses.replace(reports.FAULTY.measured, sides={"height": sides}),
    )
    ticks, (height,) = html_report._ranges(changed)
    html_report.render(changed)
    return ticks, height


def test_ranges_lie_along_a_logarithmic_axis():
    ticks, height = plotted((32, 512), (64, 1024))
    assert ticks == {32: 0, 64: 20, 128: 40, 256: 60, 512: 80, 1024: 100}
    assert (height.measured.start, height.measured.end) == (0, 80)
    assert (height.documented.start, height.documented.end) == (20, 100)
    assert height.is_short


@pytest.mark.parametrize(
    ("measured", "documented", "is_short"),
    [
        ((32, 64), (32, 64), False),
        ((32, 64), (16, 32), True),
        ((32, 64), (None, None), False),
        ((32, 64), (None, 65), True),
        ((1, 1), (0, 1), True),
        ((7, 2**40), (None, -3), False),
    ],
)
def test_ranges_of_any_kind_are_drawn(measured, documented, is_short):
    ticks, height = plotted(measured, documented)
    assert 2 <= len(ticks) <= 11
    assert height.is_short == is_short
    for span in (height.measured, height.documented):
        assert 0 <= span.start <= span.end <= 100


def test_what_was_measured_is_told():
    text = " ".join(re.sub("<[^>]*>", "", rendered()).split())
    assert "32 to 1440 px, in steps of 32 32 to 2048 px documented" in text
    assert "1 to 4096 px up to 1024 px documented Larger sizes: no time" in text
    assert text.count("The documented range exceeds the measured range") == 1
    assert "Batch sizes that work: 1 2 3 7 32 64 128 256" in text
    assert "The search ended early: out of time after 120 s" in text
    assert "Measured image sizes" not in html_report.render(reports.CLEAN)


def test_times_are_drawn_by_length():
    bars = html_report._bars(reports.FAULTY)
    assert [bar.name for bar in bars[:3]] == ["R11", "I03", "R01"]
    assert [bar.name for bar in bars[-2:]] == [
        f"{len(reports.FAULTY.clauses) - 8} other clauses",
        "outside clauses",
    ]
    assert sum(bar.seconds for bar in bars) == pytest.approx(reports.FAULTY.seconds)
    assert max(bar.length for bar in bars) == 100
    assert html_report._bars(reports.EMPTY) == []


# Display in a browser.


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(rendered(), encoding="utf-8")
    return path.as_uri()


def visible_rows(page: sync_api.Page) -> list[str]:
    """Returns the ids of the visible rows."""
    rows = "[...document.querySelectorAll('tr[data-status]')]"
    return page.evaluate(
        f"{rows}.filter((r) => r.getClientRects().length).map((r) => r.id)"
    )


def pressed_buttons(page: sync_api.Page) -> list[str]:
    buttons = "[...document.querySelectorAll('[aria-pressed=true]')]"
    return page.evaluate(f"{buttons}.map((button) => button.value)")


def rows_after(page: sync_api.Page, button: str) -> list[str]:
    """Waits until `button` is pressed; returns the ids of the visible rows."""
    page.wait_for_selector(f"button[value={button}][aria-pressed=true]")
    assert pressed_buttons(page) == [button]
    return visible_rows(page)


@pytest.mark.parametrize("width", [1280, 800, 360])
def test_a_link_to_the_failures_shows_them_alone(page, url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{url}#failures")
    assert visible_rows(page) == FAILURES
    assert pressed_buttons(page) == ["failures"]
    assert page.evaluate("document.getElementById('shown').innerText") == (
        f"Showing 3 of {len(reports.FAULTY.clauses)} clauses"
    )
    assert "Reusable SavedModel" in page.evaluate("document.body.innerText")
    assert "Image input" not in page.evaluate(
        "document.querySelector('table').innerText"
    )
    assert page_checks.too_wide(page) == []
    assert page_checks.complaints(page, url) == []


@pytest.mark.parametrize("width", [1280, 800, 360])
def test_all_fits_the_window(page, url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(url)
    assert visible_rows(page) == [result.id for result in reports.FAULTY.clauses]
    assert page_checks.too_wide(page) == []
    assert page_checks.complaints(page, url) == []


def test_filters_obey_the_keyboard(page, url):
    page.goto(url)
    all_rows = visible_rows(page)
    for key in ("Tab", "Tab", "Enter"):
        page.keyboard.press(key)
    assert rows_after(page, "failures") == FAILURES
    for key in ("Tab", "Space"):
        page.keyboard.press(key)
    assert rows_after(page, "warnings") == ["S02"]
    page.keyboard.press("Space")
    assert rows_after(page, "all") == all_rows
    assert page_checks.complaints(page, url) == []


def test_a_link_to_a_clause_ends_the_filter(page, url):
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(f"{url}#failures")
    page.evaluate("document.querySelector('.bars a[href=\"#I03\"]').click()")
    assert "I03" in rows_after(page, "all")
    top = page.evaluate("document.getElementById('I03').getBoundingClientRect().top")
    assert 0 <= top < 800


def test_without_scripts_all_is_there(chromium, url):
    with chromium.new_page(java_script_enabled=False) as page:
        page.goto(f"{url}#failures")
        assert visible_rows(page) == [result.id for result in reports.FAULTY.clauses]
        assert page.evaluate("document.querySelectorAll('button:enabled').length") == 0
        assert page_checks.complaints(page, url) == []


def test_scripts_in_a_report_do_not_run(page, url):
    page.goto(url)
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.title") == f"Fail: {reports.PATH}"


def test_the_page_forbids_other_scripts(page, url):
    page.goto(url)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{text: 'window.taken = true'}))"
    )
    assert page.evaluate("window.taken") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_text_stands_out_from_its_background(page, url, scheme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    page.goto(url)
    contrasts = page_checks.contrasts(page)
    assert len(contrasts) > 100
    assert [contrast for contrast in contrasts if contrast[0] < 4.5] == []
    is_dark = [background < 0.2 for *_, background in contrasts]
    assert all(is_dark) if scheme == "dark" else not any(is_dark)
