"""Writes a small hub with the box “Try it”, and serves it."""

from __future__ import annotations

import contextlib
import functools
import http.server
import pathlib
import shutil
import threading
from collections.abc import Iterator, Mapping

from documentation import rendering, try_it
from publishing import archives

FOLDER = "publisher/models/arch/classification/1"
ASSETS, RUNTIME = "assets/pages", "assets/runtime"
_UP = "../" * (FOLDER.count("/") + 1)
# A page as those of `templates/hub`, with nothing but the box.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'self'; img-src data:; {policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>A classifier</title>
<link rel="stylesheet" href="{assets}hub.css">
<link rel="stylesheet" href="{assets}{style}">
<script type="module" src="{assets}{script}"></script>
</head>
<body><main>
{box}
</main></body>
</html>
"""


def write(
    hub: pathlib.Path, model: pathlib.Path, runtime: Mapping[str, pathlib.Path]
) -> pathlib.Path:
    """Writes a hub with the ONNX model in `model`. Returns the folder of its page."""
    for name, source in runtime.items():
        (hub / RUNTIME).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, hub / RUNTIME / name)
    sources = pathlib.Path(try_it.__file__).with_name("hub_assets")
    shutil.copytree(sources, hub / ASSETS)
    folder = hub / FOLDER
    (folder / "formats").mkdir(parents=True)
    archive = folder / try_it.ARCHIVE
    files = {
        p.relative_to(model).as_posix(): p for p in model.rglob("*") if p.is_file()
    }
    archives.write(files, archive)
    box = try_it.for_model(
        model,
        runtime=runtime,
        address=f"{_UP}{RUNTIME}/",
        download=archive.stat().st_size,
    )
    text = _PAGE.format(
        policy=try_it.POLICY,
        assets=f"{_UP}{ASSETS}/",
        style=try_it.STYLE,
        script=try_it.SCRIPT,
        box=rendering.render("parts/try_it.html.jinja", try_it=box),
    )
    (folder / "index.html").write_text(text, encoding="utf-8")
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The handler of `python -m http.server`, without its log."""

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(
    folder: pathlib.Path, handler: type[http.server.SimpleHTTPRequestHandler] = Quiet
) -> Iterator[str]:
    """Serves a folder as `python -m http.server` does. Returns its address."""
    answer = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
