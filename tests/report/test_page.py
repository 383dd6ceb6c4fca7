"""Tests of the page without a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lossbuf.report import PageContent as Exported
from lossbuf.report import save_page
from lossbuf.report.page import PageContent, page
from tests.report.contents import HOSTILE, content, hostile_content, picture, table

NAN = float("nan")


class Parsed(HTMLParser):
    """Elements, and the text in those that a test asks for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.inside = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style", "title", "h1", "li", "dd"):
            self.texts.append([tag, dict(attrs), ""])
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != self.texts[-1][0]

    def handle_data(self, data):
        if self.inside:
            self.texts[-1][2] += data

    def tagged(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def text(self, tag):
        return [text for name, _, text in self.texts if name == tag]

    def data(self):
        (text,) = [text for tag, attrs, text in self.texts if tag == "script" and "type" in attrs]
        return json.loads(text)


def visible(text):
    return re.sub(r"\s+", " ", re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.S)).replace("\xa0", " ")


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_numbers_of_the_result():
    text = visible(page(content(doubts=["Look twice."], skipped=[("a.png", "no image")])))
    result = ("Labels of pets", "25.0 %", "from 20.0 % to 31.0 %", "Rows 60", "Suspects 20 33.3 %", "Classes 3")
    run = ("Look twice.", "1 could not be read and was skipped", "a.png", "no image", "Network a small one")
    for part in (*result, *run):
        assert part in text, part
    assert "80.0 10.0 10.0" in text  # the first row of the matrix


def test_suspects_come_worst_first_with_pictures():
    rows = table()
    data = Parsed(page(content(table=rows))).data()
    worst = rows.sort_values("suspicion", ascending=False).head(20)
    assert data["ids"] == worst["id"].tolist() == [f"row-{row}" for row in range(20)]
    assert data["given"] == worst["given_label"].tolist()
    assert data["suggested"] == worst["suggested_label"].tolist()
    assert data["scores"] == pytest.approx(worst["suspicion"].tolist(), rel=1e-4)
    assert data["probabilities"] == pytest.approx(worst["wrong_probability"].tolist(), rel=1e-4)
    prefix = "data:image/png;base64,"
    assert [base64.b64decode(uri.removeprefix(prefix)) for uri in data["pictures"]] == list(map(picture, range(20)))


def test_ties_fall_by_loss_then_row():
    rows = table().assign(suspicion=1.0, label_loss=2.0)
    rows.loc[7, "label_loss"] = 99.0
    ids = Parsed(page(content(table=rows))).data()["ids"]
    assert ids == [f"row-{row}" for row in (7, *range(7), *range(8, 20))]


def test_order_of_rows_changes_nothing():
    rows = table()
    assert page(content(table=rows)) == page(content(table=rows.sort_index()))


def test_gallery_holds_the_worst():
    text = page(content(max_suspects=5))
    assert Parsed(text).data()["ids"] == [f"row-{row}" for row in range(5)]
    assert "The 5 worst are here; 15 less suspect ones are left out." in visible(text)
    asked = []
    page(content(max_suspects=5, thumbnail=lambda row: asked.append(row)))
    assert asked == [0, 1, 2, 3, 4]


def test_key_is_of_what_is_decided_on():
    def key(**changes):
        return Parsed(page(content(**changes))).data()["key"]

    other = table()
    other.loc[3, "suggested_label"] = other.loc[3, "given_label"]
    assert key() == key(title="another", thumbnail=None, noise_rate=0.5)
    assert len({key(), key(table=other), key(class_names=["cat", "dog", "ant"]), key(max_suspects=5)}) == 4


# ---- safety ----------------------------------------------------------------------------------------------------------


def test_markup_in_the_data_is_text():
    hostile, tame = (
        Parsed(page(hostile_content(doubts=HOSTILE))),
        Parsed(page(content(class_names=["cat"], table=table(9, 1, 3)))),
    )
    for tag in ("script", "style", "link", "meta"):
        assert len(hostile.tagged(tag)) == len(tame.tagged(tag)), tag
    assert not hostile.tagged("img")
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on") or name == "style"]
    assert hostile.text("title") == [HOSTILE[0]]
    assert hostile.text("li")[: len(HOSTILE)] == HOSTILE
    assert hostile.data()["classes"] == HOSTILE


def test_data_cannot_end_its_element():
    (raw,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page(hostile_content(doubts=HOSTILE)), re.S
    )
    assert not re.search("[<>&\u2028\u2029]|[^\x00-\x7f]", raw)


def test_nothing_comes_from_outside():
    parsed = Parsed(page(content()))
    links = [
        (tag, attrs[name]) for tag, attrs in parsed.elements for name in ("src", "href", "action") if name in attrs
    ]
    assert {tag for tag, _ in links} == {"a", "link"}
    assert all(to.startswith("#") for tag, to in links if tag == "a")
    assert [to for tag, to in links if tag == "link"] == ["data:,"]
    (style,) = parsed.text("style")
    assert "url(" not in style
    assert "@import" not in style


def test_policy_names_this_script_and_this_style():
    parsed = Parsed(page(content()))
    (policy,) = [attrs["content"] for attrs in parsed.tagged("meta") if "http-equiv" in attrs]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (style,) = parsed.text("style")
    (script,) = [text for tag, attrs, text in parsed.texts if tag == "script" and "type" not in attrs]
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["require-trusted-types-for"] == "'script'"
    assert rules["trusted-types"] == "'none'"
    assert "innerHTML" not in script


def test_ids_that_utf8_cannot_hold(tmp_path):
    rows = table()
    rows["id"] = pd.Series([f"bad\udcff{row}.png" for row in rows.index], rows.index, dtype=object)
    save_page(tmp_path / "page.html", content(table=rows))
    assert Parsed((tmp_path / "page.html").read_text(encoding="utf-8")).data()["ids"][0] == r"bad\udcff0.png"


# ---- unusual content -------------------------------------------------------------------------------------------------


def test_no_suspects():
    text = page(content(table=table(suspects=0), noise_rate_interval=None))
    assert "No row is suspected." in text
    assert "Estimates range" not in text
    assert not Parsed(text).tagged("script")


def test_one_class():
    text = visible(page(content(class_names=["only"], table=table(9, 1, 2))))
    assert "Classes 1" in text
    assert "100.0" in text


def test_rows_never_seen():
    rows = table()
    rows.loc[[0, 1, 59], "suspicion"] = NAN
    rows.loc[[0, 1, 59], "wrong_probability"] = NAN
    text = page(content(table=rows))
    data = Parsed(text).data()
    assert "Never seen 3" in visible(text)
    assert data["ids"][-2:] == ["row-0", "row-1"]
    assert data["scores"][-2:] == data["probabilities"][-2:] == [None, None]


def test_no_row_seen_and_no_matrix():
    rows = table(suspects=0).assign(suspicion=NAN, label_loss=NAN).drop(columns="wrong_probability")
    text = visible(page(content(table=rows, transition=None, thumbnail=None)))
    assert text.count("No row has a value.") == 2
    assert "How labels go wrong" not in text


def test_infinite_values_and_no_probability():
    rows = table().drop(columns="wrong_probability")
    rows["id"] = list(rows.index)  # numbers are shown as text
    rows.loc[0, "suspicion"], rows.loc[59, "suspicion"] = np.inf, -np.inf
    data = Parsed(page(content(table=rows, thumbnail=lambda row: None))).data()
    assert data["probabilities"] is None
    assert data["scores"][0] == 1e300
    assert data["ids"][:3] == ["0", "1", "2"]
    assert data["pictures"] == [None] * 20


def test_thousands_of_classes():
    names = [f"class {label}" for label in range(2000)]
    after = (np.arange(2000), (np.arange(2000) + 1) % 2000)
    matrix = np.eye(2000) * 0.9
    matrix[after] = 0.1
    matrix[17, 17], matrix[17, 4] = 0.5, 0.4
    text = page(content(class_names=names, table=table(3000, 2000, 300), transition=matrix))
    assert len(Parsed(text).elements) < 1500
    assert "class 17 class 4 40.0 % class 0 class 1 10.0 % class 1 class 2 10.0 %" in visible(text)
    assert "The 60 classes with the most suspects; 1,940 more are left out." in visible(text)


def test_many_skipped_are_cut_short():
    text = page(content(skipped=[(f"{i}.png", "broken") for i in range(1500)]))
    assert len(Parsed(text).tagged("li")) == 1000
    assert "and 500 more" in visible(text)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_saved_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "report.html"
    save_page(path, content())
    before = path.read_bytes()
    assert before == page(content()).encode()

    def broken(row):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        save_page(path, content(thumbnail=broken))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_one_content_class():
    assert Exported is PageContent


@pytest.mark.parametrize(
    "name", ["id", "given_label", "suggested_label", "predicted_label", "is_suspect", "suspicion", "label_loss"]
)
def test_missing_columns(name):
    plain = vars(content())
    with pytest.raises(ValueError, match=f"`table` must have columns .*, got none named '{name}'"):
        PageContent(**{**plain, "table": plain["table"].drop(columns=name)})


@pytest.mark.parametrize("name", ["given_label", "suggested_label", "predicted_label"])
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(name, label):
    rows = table()
    rows.loc[11, name] = label
    with pytest.raises(ValueError, match=re.escape(f"`table['{name}']` must lie in [0, 3), got {label} at row 11.")):
        content(table=rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": []}, "`class_names` must hold at least one name, got none."),
        ({"class_names": ["a", "b", "a"]}, "`class_names` must be unique, got 'a' twice."),
        ({"noise_rate": 1.5}, "`noise_rate` must lie in [0, 1], got 1.5."),
        ({"noise_rate_interval": (0.5, 0.2)}, "`noise_rate_interval` must be (low, high), got (0.5, 0.2)."),
        ({"noise_rate_interval": (0.5, 1.2)}, "`noise_rate_interval` must lie in [0, 1], got 1.2."),
        ({"threshold": NAN}, "`threshold` must be a number, got nan."),
        ({"max_suspects": 0}, "`max_suspects` must be an integer of at least 1, got 0."),
        (
            {"transition": np.eye(2)},
            "`transition` must have shape (3, 3), a row and a column a class, got shape (2, 2).",
        ),
        ({"transition": np.ones((3, 3))}, "rows that sum to 1, got sums from 3 to 3."),
        ({"transition": np.full((3, 3), NAN)}, "rows that sum to 1, got sums from nan to nan."),
        (
            {"transition": np.eye(3) * 2 - np.full((3, 3), 1 / 3)},
            "`transition` must hold P(given | true), none negative",
        ),
        ({"table": table().iloc[:0]}, "`table` must hold at least one row, got none."),
        ({"table": table().assign(given_label=0.5)}, "`table['given_label']` must be integers, got dtype float64."),
        ({"table": table().assign(label_loss="a")}, "`table['label_loss']` must be numbers"),
        (
            {"table": table().assign(wrong_probability=1.2)},
            "`table['wrong_probability']` must lie in [0, 1], got 1.2 at",
        ),
        ({"table": table().assign(id="same")}, "`table['id']` must be unique among suspects, got 'same' twice."),
        ({"table": table().set_index("id", drop=False)}, "`table` must have the row numbers, each once, as its index"),
        ({"table": pd.concat([table(), table()])}, "`table` must have the row numbers, each once, as its index"),
    ],
)
def test_content_that_has_no_meaning(changes, message, no_shape_checks):
    with pytest.raises(ValueError, match=re.escape(message)):
        PageContent(**{**vars(content()), **changes})


def test_suspects_must_be_true_or_false():
    rows = table()
    with pytest.raises(ValueError, match=re.escape("`table['is_suspect']` must be True or False, got dtype int64.")):
        PageContent(**{**vars(content()), "table": rows.assign(is_suspect=rows["is_suspect"].astype("int64"))})


def test_pictures_of_another_kind():
    with pytest.raises(
        ValueError, match=r"`thumbnail` must give PNG, JPEG or WebP, or None, got b'<svg/>'\.\.\. for row 0"
    ):
        page(content(thumbnail=lambda row: b"<svg/>"))
