"""Tests of the page in a real Chromium: what is stored, and content that means harm."""

import pytest

from lossbuf.files.safe_csv import escaped, unescaped
from lossbuf.report import save_page
from tests.report.browsing import downloaded, to_gallery, until
from tests.report.contents import HOSTILE, content, hostile_content, table

# ---- what stays ----------------------------------------------------------------------------------------------------


def decide_two(page):
    page.locator("article select").nth(2).select_option("drop")
    page.locator("article").nth(7).get_by_role("checkbox").check()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_decisions_survive_a_reload(visit, served, tmp_path, scheme):
    save_page(tmp_path / "report.html", content())
    page = visit(url=served if scheme == "http" else None)
    decide_two(page)
    before = downloaded(page)
    page.reload()
    to_gallery(page)
    assert page.get_by_role("status").text_content() == "2 of 20 decided"
    assert page.locator("article select").nth(2).input_value() == "drop"
    assert page.locator("article").nth(7).get_by_role("checkbox").is_checked()
    assert downloaded(page) == before
    save_page(tmp_path / "report.html", content(max_suspects=19))  # another page at the same place
    page.reload()
    to_gallery(page)
    assert page.get_by_role("status").text_content() == "0 of 19 decided"


def test_without_storage(visit):
    page = visit(content(), script="Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }});")
    assert page.get_by_text("This browser does not keep decisions").is_visible()
    decide_two(page)
    assert [line["decision"] for line in downloaded(page)] == ["drop", "relabel"]


def test_storage_that_others_wrote(visit, served, tmp_path):
    save_page(tmp_path / "report.html", content())
    page = visit(url=served)
    page.locator("article").first.get_by_role("checkbox").check()
    until(page, "localStorage.length === 1")
    key = page.evaluate("localStorage.key(0)")
    entries = (
        '[[0, "burn", 1], [99, "drop", -1], [-1, "drop", -1], [1.5, "keep", 0], ["0", "drop", 0], [1, "relabel", 3],'
        ' [2, "relabel", null], null, [], [3, "drop", 88]]'
    )
    for stored, kept in (("not json", []), ("17", []), ("null", []), ('{"a": 1}', []), (entries, ["drop"])):
        page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, stored])
        page.reload()  # what is on the page was stored before, and does not overwrite it
        assert page.get_by_role("status").text_content() == f"{len(kept)} of 20 decided", stored
    page.locator("article").first.get_by_role("checkbox").check()
    assert [line["decision"] for line in downloaded(page)] == ["relabel", "drop"]


# ---- hostile content ------------------------------------------------------------------------------------------------


def test_hostile_names_stay_text(visit):
    shown = hostile_content(doubts=HOSTILE)
    page = visit(shown)
    assert page.title() == HOSTILE[0]
    page.get_by_role("button", name="Tick all 40 shown").click()
    page.locator("article").first.focus()
    page.keyboard.press("o")
    page.keyboard.press("Escape")
    found = downloaded(page)
    rows = shown.table[shown.table["is_suspect"]].sort_index()
    assert [unescaped(line["id"]) for line in found] == rows["id"].tolist()
    assert [unescaped(line["label"]) for line in found] == [HOSTILE[label] for label in rows["suggested_label"]]
    assert [line["given_label"] for line in found] == [escaped(HOSTILE[label]) for label in rows["given_label"]]
    assert any(line["label"].startswith("'=HYPERLINK") for line in found)
    texts = page.locator("article dd bdi").all_text_contents()
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    assert page.evaluate("window.pwned") is None
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("[...document.images].every(image => image.src.startsWith('data:'))")


def test_cells_are_escaped_as_in_python(visit):
    formulas = ["=1+1", "+1", "-1.5e3", "-1.5e", "-", "+.5", "@a", "=", "-.", "- 1", "-1\n", "\uff1d1", "\uff0b1"]
    marks = ["'", "''a", "'=1", "\tx", "\rx", "\nx", " =1", "\uff0d1", "\uff20a"]
    texts = [*formulas, *marks, "plain", "a,b", 'a"b', "a\r\nb", "1e5", "x\n", "\xe9\U0001f600", ""]
    rows = table(60, 3, len(texts))
    rows["id"] = [texts[row] if row < len(texts) else str(row) for row in rows.index]
    page = visit(content(table=rows))
    page.get_by_role("button", name="Tick all").click()
    cells = [line["id"] for line in downloaded(page)]
    assert cells == [escaped(text) for text in texts]
    assert [unescaped(cell) for cell in cells] == texts


ATTEMPTS = [
    "const s = document.createElement('script'); s.textContent = 'window.pwned = 1'; document.body.append(s)",
    "const b = document.createElement('button'); b.setAttribute('onclick', 'window.pwned = 1');"
    " document.body.append(b); b.click()",
    "document.body.innerHTML = '<img src=x onerror=\"window.pwned = 1\">'",
    "const i = new Image(); i.onload = () => { window.pwned = 1 }; i.src = 'http://127.0.0.1:9/x.png';"
    " document.body.append(i)",
    "const l = document.createElement('link'); l.rel = 'stylesheet'; l.href = 'http://127.0.0.1:9/x.css';"
    " document.head.append(l)",
    "setTimeout(() => eval('window.pwned = 1'))",
]


def test_policy_stops_what_gets_in(browser, tmp_path):
    save_page(tmp_path / "report.html", content())
    context = browser.new_context()
    page = context.new_page()
    told, failed = [], []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("requestfailed", lambda request: failed.append(request.failure))
    for attempt in ATTEMPTS:
        told.clear()
        page.goto((tmp_path / "report.html").as_uri())
        page.evaluate(f"() => {{ try {{ {attempt} }} catch (error) {{ console.error('stopped: ' + error) }} }}")
        page.wait_for_timeout(100)
        assert page.evaluate("window.pwned") is None
        assert any("Content Security Policy" in text or "stopped: " in text for text in told), attempt
    assert set(failed) <= {"csp"}
    context.close()
