"""What the first visit of the page transfers: `python benchmarks/first_load.py [--url URL] [--list]`.

Without a URL the page is served by this process, on this computer; no model is loaded. A fresh Chromium opens
it, and all that it asks for until nothing more comes is counted by kind, in bytes as they were transferred:
compressed, with the headers of the answers.
"""

import argparse
from collections import defaultdict
from dataclasses import dataclass

import common  # noqa: F401  (makes the repository and the tests importable)
from browser import CHROMIUM
from playwright.sync_api import sync_playwright

QUIET = 3.0  # s without a request, after which the page counts as loaded


@dataclass
class Request:
    """One request of the page. size: bytes transferred for it."""

    url: str
    kind: str
    size: int = 0


def first_load(url: str, quiet: float = QUIET) -> list[Request]:
    """The requests of a visitor who has never opened the page at `url` before."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            return requests_of(browser.new_context().new_page(), url, quiet)
        finally:
            browser.close()


def requests_of(page, url: str, quiet: float = QUIET) -> list[Request]:
    """The requests by which a page of Playwright, in a context of its own, opens `url`."""
    found: dict[str, Request] = {}

    def asked(event: dict) -> None:
        if event["request"]["url"].startswith("http"):
            found[event["requestId"]] = Request(event["request"]["url"], event.get("type", "Other"))

    def received(event: dict) -> None:
        if event["requestId"] in found:
            found[event["requestId"]].size += max(event.get("encodedDataLength", 0), 0)

    def finished(event: dict) -> None:
        if event["requestId"] in found:
            found[event["requestId"]].size = event["encodedDataLength"]

    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.requestWillBeSent", asked)
    session.on("Network.dataReceived", received)  # what never ends, such as a stream of events
    session.on("Network.loadingFinished", finished)
    page.goto(url)
    page.wait_for_selector("#run")
    count = -1
    while count != len(found):
        count = len(found)
        page.wait_for_timeout(1000 * quiet)
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a page that is served already")
    parser.add_argument("--list", action="store_true", help="print every request")
    options = parser.parse_args()
    if options.url:
        report(first_load(options.url), options.list)
        return
    import app

    page = app.build()
    _, url, _ = page.launch(
        prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", run_history=False, **app.LOOKS
    )
    try:
        report(first_load(url), options.list)
    finally:
        page.close()


def report(requests: list[Request], every: bool) -> None:
    kinds = defaultdict(list)
    for request in requests:
        kinds[request.kind].append(request)
    for kind, some in sorted(kinds.items(), key=lambda item: -sum(request.size for request in item[1])):
        print(f"{kind:<12} {len(some):>4} requests {sum(request.size for request in some) / 1000:>8.1f} kB")
        for request in sorted(some, key=lambda request: -request.size) if every else ():
            print(f"    {request.size / 1000:>8.1f} kB  {request.url}")
    print(
        f"{'all':<12} {len(requests):>4} requests {sum(request.size for request in requests) / 1000:>8.1f} kB"
    )


if __name__ == "__main__":
    main()
