"""Opens pages in a real browser without a window, and notes what goes wrong in them."""

import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def find_browser():
    """Return the path of a Chromium: of FOVEA_BROWSER, of the system or of get_browser.sh."""
    own = Path(sys.prefix, "browser", "chromium")
    named = os.environ.get("FOVEA_BROWSER")
    found = [named, *map(shutil.which, NAMES), str(own) if own.exists() else None]
    return next(filter(None, found), None)


@contextmanager
def opened(page_file, width=1280, height=900):
    """Yield (page, problems): a Playwright page that shows ``page_file``.

    ``problems`` grows by each error or warning on the console, each exception, and each request for
    anything but the page itself. Skips the test where there is no browser.
    """
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium here: scripts/get_browser.sh puts one into .venv/browser")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    address = Path(page_file).absolute().as_uri()
    problems = []

    def note_message(message):
        if message.type in ("error", "warning"):
            problems.append(f"{message.type}: {message.text}")

    def note_request(request):
        if request.url != address and not request.url.startswith("data:"):
            problems.append(f"request: {request.url}")

    with sync_api.sync_playwright() as play:
        # Root, as in containers, may not have Chromium's sandbox; the pages are our own.
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=120_000)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(60_000)
            page.on("console", note_message)
            page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
            page.on("request", note_request)
            page.goto(address)
            yield page, problems
        finally:
            browser.close()
