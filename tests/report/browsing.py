"""What the tests do with a page in a browser."""

import csv
import io

COLUMNS = ["id", "given_label", "suggested_label", "decision", "label"]


def to_gallery(page):
    page.evaluate("document.getElementById('suspects').scrollIntoView({behavior: 'instant'})")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page


def until(page, condition):
    """Waits for it; Playwright's own way to wait needs ``eval``, which the page forbids."""
    for _ in range(60):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def downloaded(page):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download decisions (CSV)").click()
    assert waiting.value.suggested_filename == "decisions.csv"
    with open(waiting.value.path(), "rb") as file:
        data = file.read()
    lines = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    assert lines[0] == COLUMNS
    assert data.count(b"\r\n") >= len(lines)
    return [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


def card(page, name):
    return page.locator("article").filter(has=page.get_by_title(name, exact=True))


def cards(page):
    return page.locator("article .id").all_text_contents()


def focused(page):
    return page.evaluate("document.activeElement.querySelector?.('.id')?.textContent ?? document.activeElement.id")
