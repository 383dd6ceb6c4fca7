"""A real Chromium without a window, and pages in it."""

import functools
import http.server
import shutil
import threading

import pytest

from lossbuf.report import save_page
from tests.report.browsing import to_gallery

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser():
    """The browser; tests that need it are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page's tests need playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the page's tests need chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a content; every message of the console and every error fails the test."""
    told, contexts = [], []

    def open_page(shown=None, *, url=None, script=None, **options):
        if shown is not None:
            save_page(tmp_path / "report.html", shown)
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url) if outside(request.url) else None)
        page.goto(url or (tmp_path / "report.html").as_uri())
        return to_gallery(page) if options.get("java_script_enabled", True) else page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []


def outside(url):
    return not url.startswith(("file:", "data:", "blob:", "http://127.0.0.1"))


@pytest.fixture
def served(tmp_path):
    """The address of the page over http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/report.html"
    server.shutdown()
    server.server_close()
    thread.join()
