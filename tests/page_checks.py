"""Checks of pages in a browser: errors, requests, overflow and contrast."""

from __future__ import annotations

from playwright import sync_api

_REMEMBERED_REQUESTS = 100  # by Page.requests()


def complaints(page: sync_api.Page, url: str) -> list[str]:
    """Returns errors, console messages and requests for addresses outside `url`."""
    requests = [request.url for request in page.requests()]
    assert len(requests) < _REMEMBERED_REQUESTS, "Playwright forgot some"
    # Chromium may request a server's icon at any time. Playwright hides the request but
    # not its failure.
    messages = [
        f"{message.type}: {message.text} ({message.location['url']})"
        for message in page.console_messages()
        if not message.location["url"].endswith("/favicon.ico")
    ]
    return [
        *(address for address in requests if not address.startswith((url, "data:"))),
        *messages,
        *map(str, page.page_errors()),
    ]


def too_wide(page: sync_api.Page, *, boxes: str = "none") -> list[str]:
    """Returns elements beyond an edge of the window, and "the page" if it is too wide.

    Args:
      page: the page.
      boxes: a selector of elements that scroll their own content.
    """
    return page.evaluate(
        """(boxes) => {
          const outside = `body, body *:not(:is(${boxes}) *)`;
          return [...document.querySelectorAll(outside)].filter((element) => {
            const box = element.getBoundingClientRect();
            return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
          }).map((element) => element.outerHTML.slice(0, 80)).concat(
            document.documentElement.scrollWidth > innerWidth ? ["the page"] : []);
        }""",
        boxes,
    )


def contrasts(
    page: sync_api.Page, *, within: str = "main"
) -> list[tuple[float, str, float]]:
    """Returns contrast, element, and background luminance of each visible text.

    Args:
      page: the page.
      within: a selector of the elements that contain the text.
    """
    return page.evaluate(
        """(within) => {
          const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
          const luminance = (color) => numbers(color).slice(0, 3)
            .map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (element) => {
            const color = getComputedStyle(element).backgroundColor;
            return numbers(color)[3] === 0 ? behind(element.parentElement) : color;
          };
          return [...document.querySelectorAll(`${within} *`)]
            .filter((element) => element.getClientRects().length &&
              [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .map((element) => {
              const style = getComputedStyle(element);
              const color = element.matches("text") ? style.fill : style.color;
              const both = [luminance(color), luminance(behind(element))];
              const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
              return [contrast, element.outerHTML.slice(0, 80), both[1]];
            });
        }""",
        within,
    )
