"""Tests of the page in a real Chromium: filters, decisions, keys."""

import numpy as np

from tests.report.browsing import COLUMNS, card, cards, downloaded, focused
from tests.report.contents import content, table

SHOWN = "document.getElementById('shown').textContent"


# ---- filters and decisions ---------------------------------------------------------------------------------------


def test_filter_tick_download(visit):
    rows, names = table(), ["cat", "dog", "eel"]
    page = visit(content(table=rows))
    suspects = rows[rows["is_suspect"]].sort_index()
    assert cards(page) == suspects["id"].tolist()

    dogs = suspects[suspects["given_label"] == 1]
    page.get_by_label("Given class").select_option(label=f"dog ({len(dogs)})")
    assert cards(page) == dogs["id"].tolist()
    page.get_by_role("button", name=f"Tick all {len(dogs)} shown").click()
    page.get_by_label("Given class").select_option("")
    others = suspects[suspects["given_label"] != 1]["id"].tolist()
    card(page, others[0]).get_by_role("checkbox").check()
    card(page, others[1]).get_by_role("combobox").select_option("keep")
    card(page, others[2]).get_by_role("combobox").select_option("drop")
    assert page.get_by_role("status").text_content() == f"{len(dogs) + 3} of 20 decided"

    def line(name, decision, label):
        row = suspects[suspects["id"] == name].iloc[0]
        given, suggested = names[row["given_label"]], names[row["suggested_label"]]
        label = {"suggested": suggested, "given": given, "": ""}[label]
        return dict(zip(COLUMNS, (name, given, suggested, decision, label), strict=True))

    ends = {others[0]: ("relabel", "suggested"), others[1]: ("keep", "given"), others[2]: ("drop", "")}
    ends |= dict.fromkeys(dogs["id"], ("relabel", "suggested"))
    assert downloaded(page) == [line(name, *ends[name]) for name in suspects["id"] if name in ends]


def test_every_filter(visit):
    rows = table(400, 3, 200)
    rows["id"] = "R" + rows["id"].str[1:]
    page = visit(content(table=rows))
    suspects = rows[rows["is_suspect"]].sort_index()

    def shown():
        found, of = page.evaluate(SHOWN).split(" of ")
        assert of == "200 shown"
        return int(found)

    page.get_by_label("Suggested class").select_option("2")
    assert shown() == (suspects["suggested_label"] == 2).sum()
    page.get_by_label("Given class").select_option("1")
    assert shown() == ((suspects["suggested_label"] == 2) & (suspects["given_label"] == 1)).sum()
    page.get_by_label("Given class").select_option("2")
    assert shown() == 0
    assert page.get_by_text("No suspect passes these filters.").is_visible()
    assert page.get_by_role("button", name="Tick all 0 shown").is_disabled()
    page.get_by_label("Given class").select_option("")
    page.get_by_label("Suggested class").select_option("")
    page.get_by_label("Id contains").fill("rOW-19")
    assert cards(page) == ["Row-19", *(f"Row-{row}" for row in range(190, 200))]
    page.get_by_label("Id contains").fill("")
    page.get_by_label("Wrong with at least").fill("0.97")
    assert shown() == (suspects["wrong_probability"] >= 0.97).sum() < 200
    assert "97" in page.locator("#least-value").text_content()
    page.get_by_label("Wrong with at least").fill("0")
    page.get_by_role("checkbox").first.check()
    for choice, count in (("open", 199), ("decided", 1), ("relabel", 1), ("keep", 0), ("drop", 0), ("", 200)):
        page.get_by_label("Decision", exact=True).select_option(choice)
        assert shown() == count, choice


def test_filter_by_score_without_probabilities(visit):
    rows = table(60, 3, 40).drop(columns="wrong_probability")
    rows.loc[[3, 4], "suspicion"] = [np.inf, np.nan]
    page = visit(content(table=rows))
    assert cards(page)[0] == "row-3"
    assert page.locator(".badness").first.text_content() == "score ∞"
    assert page.evaluate(SHOWN) == "40 of 40 shown"
    least = page.get_by_label("Score of at least")
    least.press("ArrowRight")
    for _ in range(9):
        least.press("PageUp")
    value = float(least.input_value())
    passing = (rows.loc[rows["is_suspect"], "suspicion"] >= value).sum()
    assert 1 < passing < 38
    assert page.evaluate(SHOWN) == f"{passing} of 40 shown"


def test_ticking_keeps_decisions_and_can_be_undone(visit):
    page = visit(content())
    page.locator("article select").nth(3).select_option("drop")
    page.get_by_role("button", name="Tick all 20 shown").click()
    assert page.get_by_role("status").text_content() == "19 ticked. 20 of 20 decided"
    decisions = [line["decision"] for line in downloaded(page)]
    assert decisions == ["relabel"] * 3 + ["drop"] + ["relabel"] * 16
    page.get_by_role("button", name="Clear shown").click()
    assert page.get_by_role("status").text_content() == "20 cleared. 0 of 20 decided"
    assert page.get_by_role("button", name="Download").is_disabled()
    page.get_by_role("button", name="Undo").click()
    assert [line["decision"] for line in downloaded(page)] == decisions
    assert page.locator("article select").nth(3).input_value() == "drop"
    assert not page.get_by_role("button", name="Undo").is_visible()


def test_another_class_among_thousands(visit):
    names = [f"class {label}" for label in range(3000)]
    page = visit(content(class_names=names, table=table(3500, 3000, 30), transition=None))
    first = page.locator("article").first
    first.get_by_role("combobox").focus()
    first.get_by_role("combobox").select_option("other")
    page.get_by_label("Name contains").fill("class 29")
    assert page.locator("#picker-list option").count() == 111
    page.get_by_label("Name contains").fill("")
    assert page.locator("#picker-list option").count() == 200
    assert page.get_by_text("2800 more: type a part of the name.").is_visible()
    page.get_by_label("Name contains").fill("2999")
    page.keyboard.press("Enter")
    assert first.get_by_role("combobox").locator("option:checked").text_content() == "Relabel to class 2999"
    assert page.evaluate("document.activeElement.closest('article') && document.activeElement.tagName") == "SELECT"
    (line,) = downloaded(page)
    assert (line["decision"], line["label"]) == ("relabel", "class 2999")
    first.get_by_role("combobox").select_option("other")
    page.keyboard.press("Escape")
    assert downloaded(page) == [line]
    first.get_by_role("combobox").select_option("other")
    page.get_by_label("Name contains").fill(line["given_label"])
    page.keyboard.press("Enter")
    assert [(again["decision"], again["label"]) for again in downloaded(page)] == [("keep", line["given_label"])]


def test_what_the_network_predicts(visit):
    rows = table().sort_index()
    rows.loc[0, ["given_label", "suggested_label", "predicted_label"]] = [0, 1, 0]
    rows.loc[1, ["given_label", "suggested_label", "predicted_label"]] = [0, 1, 1]
    rows.loc[2, ["given_label", "suggested_label", "predicted_label"]] = [0, 1, 2]
    page = visit(content(table=rows))
    texts = [page.locator("article").nth(place).text_content() for place in range(3)]
    assert [("also predicted" in text, ", predicted eel" in text) for text in texts] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_suspect_without_suggestion(visit):
    rows = table()
    rows.loc[0, ["suggested_label", "predicted_label"]] = rows.loc[0, "given_label"]
    page = visit(content(table=rows))
    first = page.locator("article").first
    assert first.locator("option").all_text_contents()[1].startswith("Keep")
    first.get_by_role("checkbox").check()
    assert [line["decision"] for line in downloaded(page)] == ["keep"]


# ---- keys ----------------------------------------------------------------------------------------------------------


def test_keys(visit):
    page = visit(content())
    page.locator("article").first.focus()
    for key, place in (("j", 1), ("ArrowRight", 2), ("ArrowDown", 5), ("k", 4), ("ArrowUp", 1), ("ArrowLeft", 0),
                       ("ArrowLeft", 0), ("End", 19), ("j", 19), ("Home", 0)):  # fmt: skip
        page.keyboard.press(key)
        assert focused(page) == f"row-{place}", key
    top = page.evaluate("scrollY")
    page.keyboard.press("Space")  # row 0: as suggested
    assert page.evaluate("scrollY") == top
    page.keyboard.press("j")
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.keyboard.press("d")
    page.keyboard.press("j")
    page.keyboard.press("d")
    page.keyboard.press("r")  # row 3: another mind
    page.keyboard.press("j")
    page.keyboard.press("Space")
    page.keyboard.press("Space")  # row 4: unticked again
    page.keyboard.press("j")
    page.keyboard.press("o")  # row 5: the third class
    line = page.locator("#picker-list option").all_text_contents()
    assert line == ["cat", "dog", "eel"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert focused(page) == "row-5"
    found = {line["id"]: (line["decision"], line["label"]) for line in downloaded(page)}
    rows = table().sort_index()
    names = ["cat", "dog", "eel"]
    assert found["row-0"] == ("relabel", names[rows.loc[0, "suggested_label"]])
    assert found["row-1"] == ("keep", names[rows.loc[1, "given_label"]])
    assert found["row-2"] == ("drop", "")
    assert found["row-3"] == ("relabel", names[rows.loc[3, "suggested_label"]])
    assert found["row-5"] == ("keep" if rows.loc[5, "given_label"] == 2 else "relabel", "eel")
    assert len(found) == 5


def test_tab_goes_through_the_active_card_only(visit):
    page = visit(content())
    page.locator("article").nth(4).focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "checkbox"
    page.keyboard.press("Space")
    assert page.locator("article").nth(4).get_by_role("checkbox").is_checked()
    page.keyboard.press("j")
    assert focused(page) == "row-5"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.closest('article')")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.closest('article').querySelector('.id').textContent") == "row-5"
    page.locator("article").first.focus()
    page.keyboard.press("/")
    assert focused(page) == "by-id"
    page.keyboard.type("jd /")
    assert page.get_by_label("Id contains").input_value() == "jd /"
