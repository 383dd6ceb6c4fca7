"""From a scan to its page in a browser, to decisions, to labels."""

import numpy as np
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from lossbuf.cli.commands import app
from lossbuf.files.safe_csv import read_csv
from lossbuf.noise import corrupt, symmetric
from tests.report.browsing import cards

HOSTILE = "</script><script>document.title = 'ran'</script>"
NAMES = [HOSTILE, "=1+1", *(f"digit {n}" for n in range(2, 10))]


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def test_what_is_decided_in_the_page_becomes_labels(visit, tmp_path):
    x, y = load_digits(return_X_y=True)
    x, y = x[:300].reshape(-1, 8, 8).astype(np.uint8) * 15, y[:300]
    labels = corrupt(y, symmetric(10, 0.3), 0).labels
    ids = [f"=row {row}" for row in range(300)]
    np.savez(tmp_path / "digits.npz", x=x, y=labels, class_names=NAMES, ids=ids)
    out = tmp_path / "out"
    run("scan", tmp_path / "digits.npz", "--out", out, "--epochs", "6", "--batch-size", "32", "--device", "cpu")

    page = visit(url=(out / "report.html").as_uri())
    assert page.title() == "Labels of digits.npz"
    assert cards(page)[0] == read_csv(out / "issues.csv")["id"][0]
    page.get_by_label("Given class").select_option("0")
    shown = cards(page)
    assert shown
    assert page.locator("article").first.get_by_text(HOSTILE).first.is_visible()
    page.locator("article").first.get_by_role("combobox").select_option("drop")
    page.get_by_label("Given class").select_option("1")
    relabelled = cards(page)
    page.get_by_role("button", name="Tick all").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download decisions (CSV)").click()
    waiting.value.save_as(tmp_path / "decisions.csv")

    run("apply", out, tmp_path / "decisions.csv", "--out", tmp_path / "labels.csv")
    found = read_csv(tmp_path / "labels.csv").set_index("id")
    issues = read_csv(out / "issues.csv").set_index("id")
    assert len(found) == 299
    assert set(ids) - set(found.index) == {shown[0]}
    changed = found.index[found["label"] != found["given_label"]]
    assert set(changed) <= set(relabelled)
    assert (found.loc[relabelled, "label"] == issues.loc[relabelled, "suggested_label"]).all()
    assert page.title() == "Labels of digits.npz"
