"""Base classes of the fake Kaggle and Hugging Face servers."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import urllib.parse


class Server(http.server.ThreadingHTTPServer):
    """A fake hub on a free port, running inside its context.

    Attributes:
      seen: method and path of every request.
      tokens: the Authorization headers received.
      breaks: number of coming uploads whose connection closes halfway.
      broken: set once one of them was closed.
    """

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.seen = []
        self.tokens = set()
        self.breaks = 0
        self.broken = threading.Event()
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()
        return super().__enter__()

    def __exit__(self, *reason):
        self.shutdown()
        return super().__exit__(*reason)


class Handler(http.server.BaseHTTPRequestHandler):
    """Calls `self.answer(path, query)`, one request at a time."""

    protocol_version = "HTTP/1.1"

    def do(self):
        split = urllib.parse.urlsplit(self.path)  # a proxy gets a whole URL
        path = urllib.parse.unquote(split.path)
        self.server.tokens.add(self.headers.get("Authorization", ""))
        with self.server.lock:
            self.server.seen.append((self.command, path))
            with contextlib.suppress(ConnectionError):
                self.answer(path, urllib.parse.parse_qs(split.query))

    do_GET = do_HEAD = do_POST = do_PUT = do

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def breaks_off(self) -> bytes | None:
        """Reads half of the body and disconnects; returns None if no break is due."""
        if not self.server.breaks:
            return None
        self.server.breaks -= 1
        self.server.broken.set()
        first_part = self.rfile.read(int(self.headers["Content-Length"]) // 2)
        self.close_connection = True
        self.connection.close()
        return first_part

    def reply(self, status, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *message):
        pass
