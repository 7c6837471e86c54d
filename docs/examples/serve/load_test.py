"""Sends good and bad requests to the server from many clients, and counts the answers.

  python docs/examples/serve/load_test.py photo.jpg another.jpg --clients=1,4,16,64

One request in five is bad. Columns:

  sent       requests
  answered   200, with the same classes as the same image alone
  refused    503, with Retry-After: too many requests were waiting
  bad        4xx, the one that this bad request must get
  wrong      any other answer
  lost       no answer
  p50, p99   milliseconds until an answer with classes
  images/s   answers with classes a second

Exit codes: 0 all requests have their answer; 1 some are wrong or lost.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import http.client
import io
import itertools
import json
import pathlib
import sys
import time
import urllib.parse

import numpy as np
import PIL.Image

COLUMNS = ("sent", "answered", "refused", "bad", "wrong", "lost")


@dataclasses.dataclass(frozen=True)
class Request:
    """A request, and the status of its answer if the server has time for it."""

    body: bytes
    status: int
    k: str = ""
    classes: list[dict] | None = None


class Client:
    """Sends requests over one connection."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=60)

    def send(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        """Returns status, headers and body of the answer."""
        path = f"{self._path}?k={request.k}" if request.k else self._path
        self._connection.request("POST", path, request.body)
        answer = self._connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def close(self) -> None:
        """Closes the connection; the next request opens another one."""
        self._connection.close()


def bad_requests(photo: bytes) -> list[Request]:
    """Returns requests that must be refused, each for another reason."""
    large = io.BytesIO()
    PIL.Image.new("L", (10_000, 10_000)).save(large, "PNG")
    frames = [PIL.Image.new("L", (2000, 2000), number) for number in range(9)]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    return [
        Request(photo[: len(photo) // 2], 400),
        Request(b"", 400),
        Request(b"This is a text.", 415),
        Request(large.getvalue(), 413),
        Request(animated.getvalue(), 413),
        Request(photo, 422, k="many"),
    ]


def judge(request: Request, status: int, headers: dict[str, str], body: bytes) -> str:
    """Returns the column in which an answer is counted."""
    if status == 503 and "retry-after" in {name.lower() for name in headers}:
        return "refused"
    if status != request.status:
        return "wrong"
    if request.classes is None:
        return "bad"
    actual, expected = json.loads(body)["classes"], request.classes
    same_names = [c["id"] for c in actual] == [c["id"] for c in expected]
    scores = [[c["score"] for c in classes] for classes in (actual, expected)]
    same = same_names and np.allclose(*scores, rtol=1e-3, atol=1e-6)
    return "answered" if same else "wrong"


def run(
    url: str, requests: list[Request], clients: int
) -> tuple[collections.Counter[str], list[float]]:
    """Sends all requests; returns the columns, and the seconds of each answer."""

    def work(part: list[Request]) -> tuple[collections.Counter[str], list[float]]:
        client = Client(url)
        counts, seconds = collections.Counter(sent=len(part)), []
        for request in part:
            begin = time.perf_counter()
            try:
                column = judge(request, *client.send(request))
            except (OSError, http.client.HTTPException):
                column = "lost"
                client.close()
            counts[column] += 1
            if column == "answered":
                seconds.append(time.perf_counter() - begin)
        client.close()
        return counts, seconds

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(work, (requests[i::clients] for i in range(clients))))
    counts = sum((part for part, _ in done), collections.Counter())
    return counts, [second for _, seconds in done for second in seconds]


def main(arguments: list[str]) -> int:
    """Prints a row for each number of clients."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=pathlib.Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000/classify")
    parser.add_argument("--clients", default="1,4,16,64", help="numbers of clients")
    parser.add_argument("--requests", type=int, default=500, help="for each number")
    flags = parser.parse_args(arguments)
    numbers = flags.clients.split(",")
    if not all(number.isdecimal() and int(number) for number in numbers):
        parser.error(f"--clients must be positive numbers, not {flags.clients!r}.")
    client = Client(flags.url)
    good = []
    for photo in flags.photos:
        try:
            request = Request(photo.read_bytes(), 200)
            status, _, body = client.send(request)
        except (OSError, http.client.HTTPException) as error:
            parser.error(f"{photo}: {error}; is there a server at {flags.url}?")
        if status != 200:
            parser.error(f"{photo}: {status} {body.decode()}")
        answer = json.loads(body)["classes"]
        good.append(dataclasses.replace(request, classes=answer))
    client.close()
    good_ones, bad_ones = (
        itertools.cycle(good),
        itertools.cycle(bad_requests(good[0].body)),
    )
    requests = [
        next(bad_ones if number % 5 == 4 else good_ones)
        for number in range(flags.requests)
    ]
    print("clients", *COLUMNS, "p50", "p99", "images/s", sep="\t")
    failures = 0
    for clients in map(int, numbers):
        begin = time.perf_counter()
        counts, seconds = run(flags.url, requests, clients)
        rate = counts["answered"] / (time.perf_counter() - begin)
        times = 1000 * np.percentile(seconds or [np.nan], [50, 99])
        row = [clients, *(counts[name] for name in COLUMNS)]
        print(*row, *(f"{t:.0f}" for t in times), f"{rate:.1f}", sep="\t", flush=True)
        failures += counts["wrong"] + counts["lost"]
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
