"""A scan finds wrong labels, and a stopped one ends with the bits of one that was not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lossbuf.inputs import InputError, LabelledData, read_labelled
from lossbuf.inputs.labelled import labelled
from lossbuf.scan import ScanSettings, scan
from lossbuf.scan.folder import clean_table, issues_table, summary

SETTINGS = ScanSettings(epochs=15, batch_size=32, device="cpu")


@pytest.fixture(scope="module")
def found(digits_folder):
    root, truth = digits_folder
    data = read_labelled(root)
    result = scan(data, SETTINGS)
    wrong = np.array([truth[name] != name.split("/")[0] for name in data.ids])
    return result, wrong


def test_most_wrong_labels_are_suspects_and_most_suspects_are_wrong(found):
    result, wrong = found
    suspects = result.suspect_mask
    assert wrong[suspects].mean() > 0.85
    assert suspects[wrong].mean() > 0.8
    assert abs(result.verdict.noise_rate - wrong.mean()) < 0.06


def test_the_issues_table(found, digits_folder):
    result, _ = found
    table = issues_table(result)
    columns = ["row", "id", "given_label", "predicted_label", "suggested_label", "is_label_issue", "label_quality"]
    assert table.columns[:7].tolist() == columns
    assert table["is_label_issue"].all()
    assert len(table) == result.suspect_mask.sum()
    assert (np.diff(table["suspicion"]) <= 0).all()
    assert table["label_quality"].between(0, 1).all()
    assert (table["given_label"] == [name.split("/")[0] for name in table["id"]]).all()
    true = [digits_folder[1][name] for name in table["id"]]
    assert (table["suggested_label"] == true).mean() > 0.8
    assert [result.data.ids[row] for row in table["row"]] == table["id"].tolist()


def test_clean_rows_are_all_others(found):
    result, _ = found
    clean, issues = clean_table(result), issues_table(result)
    assert sorted([*clean["row"], *issues["row"]]) == list(range(len(result.data)))
    assert clean["row"].is_monotonic_increasing
    assert (clean["label"] == [name.split("/")[0] for name in clean["id"]]).all()


def test_the_table_is_the_callbacks(found):
    result, _ = found
    report = result.callback.report()
    assert result.table.index.tolist() == report.index.tolist()
    assert (result.table["wrong_probability"] == report["wrong_probability"]).all()
    suspicious = result.verdict.suspicion[result.table.index] > 0
    assert (result.table["predicted_label"][~suspicious] == result.table["given_label"][~suspicious]).all()
    assert (result.table["predicted_label"][suspicious] != result.table["given_label"][suspicious]).all()


def test_the_summary_tells_what_was_found(found, digits_folder):
    result, _ = found
    told = summary(result, digits_folder[0])
    assert told["n_samples"] == 500
    assert told["n_suspects"] == sum(part["suspects"] for part in told["classes"]) == result.suspect_mask.sum()
    assert sum(part["rows"] for part in told["classes"]) == 500
    assert told["noise_rate_interval"][0] <= told["noise_rate"] <= told["noise_rate_interval"][1]
    assert np.allclose(np.sum(told["transition"], axis=1), 1)


def test_the_selector_keeps_the_same_rows(found):
    result, _ = found
    selector = result.selector()
    assert (selector.get_support() == ~result.suspect_mask).all()
    assert selector.transform(result.data.x).shape == (int((~result.suspect_mask).sum()), 1, 8, 8)
    assert selector.noise_rate_ == result.verdict.noise_rate


def test_the_same_seed_gives_the_same_bits(found):
    result, _ = found
    again = scan(result.data, SETTINGS)
    assert (again.verdict.suspicion == result.verdict.suspicion).all()
    other = scan(result.data, replace(SETTINGS, seed=1, epochs=2))
    assert not (other.verdict.suspicion == result.verdict.suspicion).all()


def test_a_stopped_scan_goes_on_with_the_same_bits(found, tmp_path, monkeypatch):
    result, _ = found
    from lossbuf.training import loop as training

    class StoppedError(Exception):
        pass

    steps = 0
    step = training._Run.train_step

    def stopping(run):
        nonlocal steps
        steps += 1
        if steps == 100:  # in the middle of an epoch
            raise StoppedError
        step(run)

    monkeypatch.setattr(training._Run, "train_step", stopping)
    with pytest.raises(StoppedError):
        scan(result.data, SETTINGS, checkpoint=tmp_path / "state.pt")
    resumed = scan(result.data, SETTINGS, checkpoint=tmp_path / "state.pt")
    assert steps == 100 + 15 * 16 - 6 * 16
    assert (resumed.verdict.suspicion == result.verdict.suspicion).all()
    for one, other in zip(resumed.network.parameters(), result.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("top", [1, 30, 500])
def test_top_takes_the_worst(found, top):
    result, _ = found
    few = scan(result.data, replace(SETTINGS, top=top))
    worst = np.argsort(-result.verdict.suspicion, kind="stable")[:top]
    assert np.flatnonzero(few.suspect_mask).tolist() == sorted(worst)
    assert few.verdict.noise_rate == result.verdict.noise_rate
    # Those that are more likely right are not told another label.
    right = few.suspect_mask & (few.verdict.suspicion <= 0)
    suggested = few.verdict.suggested(result.data.labels)
    assert (suggested[right] == result.data.labels[right]).all()


def test_a_known_rate_and_a_bound_cut_elsewhere(found):
    result, _ = found
    assert scan(result.data, replace(SETTINGS, noise_rate=0.1)).suspect_mask.sum() == 50
    bounded = scan(result.data, replace(SETTINGS, max_fdr=0.01))
    assert 0 < bounded.suspect_mask.sum() < result.suspect_mask.sum()


def table_data(rows=120, classes=3):
    draw = np.random.RandomState(0)
    labels = np.arange(rows) % classes
    x = (draw.randn(rows, 4) + 4 * np.eye(max(4, classes))[labels][:, :4]).astype(np.float32)
    return labelled(x, [str(label) for label in labels], [str(row) for row in range(rows)], where="rows")


def test_rows_of_features():
    result = scan(table_data(), replace(SETTINGS, planted=0.1))
    assert result.suspect_mask.mean() < 0.1
    assert summary(result, Path("x"))["planted_found"] > 0.5


def test_classes_of_few_rows():
    result = scan(table_data(rows=9, classes=4), replace(SETTINGS, epochs=2))
    assert len(result.table) == 9
    assert result.doubts or result.suspect_mask.sum() < 9


@pytest.mark.parametrize("network", ["convnet", "resnet9", "resnet18"])
def test_networks_for_images_take_no_features(network):
    with pytest.raises(InputError, match="`network` must be 'auto' or 'mlp' where rows are features"):
        scan(table_data(), replace(SETTINGS, network=network))


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_other_networks(found, network):
    result, _ = found
    other = scan(result.data, replace(SETTINGS, network=network, epochs=1))
    assert other.callback.epoch == 1


def test_small_images_and_deep_networks():
    x = np.zeros((4, 1, 4, 4), np.uint8)
    data = labelled(x, list("abab"), list("pqrs"), where="x")
    with pytest.raises(InputError, match="must be 'auto' for images of under 8 pixels"):
        scan(data, replace(SETTINGS, network="resnet9"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"network": "no"},
        {"epochs": 0},
        {"lr": -1.0},
        {"top": 0},
        {"noise_rate": 1.5},
        {"max_fdr": -0.1},
        {"noise_rate": 0.1, "top": 3},
        {"noise_rate": 0.1, "max_fdr": 0.1},
    ],
)
def test_settings_without_meaning_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{list(wrong)[-1]}` must"):
        ScanSettings(**wrong)


def test_what_cannot_be_trained_is_refused_before(found):
    data = found[0].data
    few = replace(data, x=data.x[:33], labels=data.labels[:33], ids=data.ids[:33])
    with pytest.raises(InputError, match="`batch_size` must leave no batch of one row of 33 for resnet9"):
        scan(few, replace(SETTINGS, network="resnet9"))
    with pytest.raises(InputError, match="`device` must be there, got 'nowhere'"):
        scan(data, replace(SETTINGS, device="nowhere"))
    with pytest.raises(ValueError, match=r"`seed` must be below 2\*\*63"):
        ScanSettings(seed=2**63)


def test_losses_that_are_all_infinite_are_an_error():
    data = table_data()
    with pytest.raises(RuntimeError, match="Every loss of the training was NaN or infinite"):
        scan(replace(data, x=np.full_like(data.x, np.nan)), SETTINGS)


def test_more_than_all_rows_are_refused(found):
    with pytest.raises(InputError, match="`top` must be at most 500, the number of rows, got 501"):
        scan(found[0].data, replace(SETTINGS, top=501))


def test_doubts_are_kept_and_not_warned_of(found):
    result, _ = found
    doubtful = scan(result.data, replace(SETTINGS, epochs=1, noise_rate=0.9))
    assert doubtful.doubts  # an error if warned of


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "of_table"),
    [(10, 32, 8), (1000, 32, 16), (4095, 32, 64), (4096, 64, 128), (8191, 64, 128), (8192, 128, 128)],
)
def test_few_rows_come_in_small_batches(n_samples, batch_size, of_table):
    rest = {"labels": np.arange(n_samples) % 2, "class_names": ("a", "b"), "ids": tuple(map(str, range(n_samples)))}
    images = LabelledData(x=np.zeros((n_samples, 1, 2, 2), np.uint8), **rest)
    assert ScanSettings().training(images).batch_size == batch_size
    assert ScanSettings(batch_size=7).training(images).batch_size == 7
    table = LabelledData(x=np.zeros((n_samples, 3), np.float32), **rest)
    assert ScanSettings().training(table).batch_size == of_table
