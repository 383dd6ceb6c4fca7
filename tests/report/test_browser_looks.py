"""Tests of the page in a real Chromium: many suspects, small screens, unusual content."""

import time

import numpy as np
import pytest

from tests.report.browsing import cards, downloaded, focused, to_gallery, until
from tests.report.contents import HOSTILE, content, hostile_content, table

# ---- many suspects, small screens ------------------------------------------------------------------------------------


def test_ten_thousand_suspects(visit):
    rows = table(12_000, 10, 10_000)
    shown = content(class_names=[str(label) for label in range(10)], table=rows)
    begin = time.perf_counter()
    page = visit(shown)
    page.locator("article").first.wait_for()
    assert time.perf_counter() - begin < 5
    count = "document.querySelectorAll('*').length"
    assert page.evaluate(count) < 2500
    took = page.evaluate(
        """() => {
            const box = document.getElementById('by-id'), times = [];
            for (const text of ['9', '99', '999', 'zzz', '']) {
                box.value = text;
                const begin = performance.now();
                box.dispatchEvent(new Event('input'));
                document.body.offsetHeight;
                times.push(performance.now() - begin);
            }
            return times;
        }"""
    )
    assert np.median(took) < 100
    for share in (0.3, 0.7, 1.0, 0.5, 1.0):
        page.evaluate("share => scrollTo({top: share * document.body.scrollHeight, behavior: 'instant'})", share)
        page.wait_for_timeout(60)
        assert page.evaluate(count) < 2500
        until(page, "[430, 460].some(y => document.elementFromPoint(400, y).closest('article'))")
    assert cards(page)[-1] == "row-9999"
    page.evaluate("scrollBy({top: -1200, behavior: 'instant'})")
    page.wait_for_timeout(60)
    places = page.evaluate("[...document.querySelectorAll('article')].map(card => Number(card.ariaPosInSet))")
    assert places == sorted(places)
    page.get_by_role("button", name="Tick all 10,000 shown").click()
    assert page.get_by_role("status").text_content() == "10,000 ticked. 10,000 of 10,000 decided"
    assert len(downloaded(page)) == 10_000
    page.reload()
    to_gallery(page)
    assert page.get_by_role("status").text_content() == "10,000 of 10,000 decided"
    page.locator("article").first.focus()
    page.keyboard.press("End")
    assert focused(page) == "row-9999"
    assert page.evaluate("(b => b.top >= 0 && b.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())")


def test_nothing_is_wider_than_the_screen(visit):
    shown = hostile_content(doubts=HOSTILE)
    shown.table["predicted_label"] = (shown.table["suggested_label"] + 1) % len(HOSTILE)
    page = visit(shown)
    page.locator(".keys summary").click()
    cut_off = """[...document.querySelectorAll('article')].filter(card => {
        const outer = card.getBoundingClientRect();
        return [...card.querySelectorAll('select, input, .picture, .badness')].some(part => {
            const inner = part.getBoundingClientRect();
            return inner.bottom > outer.bottom || inner.right > outer.right || inner.top < outer.top;
        });
    }).length"""
    for width in (1280, 800, 360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        to_gallery(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("article").count() >= 10
        assert page.evaluate(cut_off) == 0


def test_cards_are_laid_out_anew(visit):
    page = visit(content())

    def columns():
        return page.evaluate(
            "new Set([...document.querySelectorAll('article')].map(card => card.getBoundingClientRect().left)).size"
        )

    assert columns() == 3
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(100)
    assert columns() == 1


def test_light_dark_and_motion(visit):
    ground = "getComputedStyle(document.body).backgroundColor"
    sum_of = "(text => text.match(/\\d+/g).map(Number).reduce((a, b) => a + b))"
    light = visit(content(), color_scheme="light", reduced_motion="reduce")
    dark = visit(content(), color_scheme="dark", reduced_motion="no-preference")
    assert light.evaluate(f"{sum_of}({ground})") > 600 > 200 > dark.evaluate(f"{sum_of}({ground})")
    motion = "getComputedStyle(document.querySelector('article')).transitionDuration"
    assert light.evaluate(motion) == "0s"
    assert dark.evaluate(motion) != "0s"


@pytest.mark.parametrize("changes", [
    {"table": table(suspects=0)},
    {"class_names": ["only"], "table": table(9, 1, 4)},
    {"table": table().assign(suspicion=np.nan, wrong_probability=np.nan), "threshold": float("inf")},
    {"table": table(1, 3, 1), "transition": None, "thumbnail": None},
    {"thumbnail": lambda row: None},
], ids=["no suspects", "one class", "never seen", "one row", "no pictures"])  # fmt: skip
def test_unusual_content(visit, changes):
    shown = content(**changes)
    page = visit(shown)
    page.get_by_role("heading", level=1).wait_for()
    suspects = int(shown.table["is_suspect"].sum())
    assert page.locator("article").count() == suspects
    without = shown.thumbnail is None
    assert page.locator("article .picture").count() == (0 if without else suspects)
    if suspects:
        page.get_by_role("button", name="Tick all").click()
        assert len(downloaded(page)) == suspects


def test_without_scripts_the_numbers_are_there(visit):
    page = visit(content(), java_script_enabled=False)
    assert page.get_by_text("need JavaScript").is_visible()
    assert page.get_by_text("25.0").is_visible()
    assert not page.locator("#by-id").is_visible()
