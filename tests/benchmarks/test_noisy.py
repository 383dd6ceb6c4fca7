"""The main benchmark: its cells, its resuming, its messages."""

import json
import re
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.common import data, duration
from benchmarks.common.labels import LabelFileError, noisy_labels
from benchmarks.noisy import experiment as noisy
from benchmarks.noisy import report

QUICK = ["--noise", "0.4", "--seeds", "1", "--epochs", "3", "--width", "4", "--subset", "300", "--scores", "score2,aum"]


def run(*arguments: str):
    return CliRunner().invoke(noisy.app, [*QUICK, *arguments])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    result = run("--out", str(out))
    assert result.exit_code == 0, result.output
    (folder,) = out.iterdir()
    return folder, result.output


def test_every_cell_is_written_with_its_settings(results):
    folder, _ = results
    names = {path.name for path in (folder / "seed0").iterdir()}
    cells = ("watch", "filter", "reweight", "oracle", "kept-score2", "kept-aum")
    assert names == {"scores.npz", *(f"{name}.json" for name in cells)}
    for name in cells:
        cell = json.loads((folder / "seed0" / f"{name}.json").read_text())
        assert cell["settings"]["epochs"] == 3
        assert cell["settings"]["seed"] == 0
        assert {"torch", "cpus"} <= cell["environment"].keys()
        assert len(cell["values"]["test_accuracy"]) == 3
    assert {path.name for path in folder.glob("*.png")} == {"pure-rate.png", "by-epoch.png", "histograms.png"}


def test_values_agree_with_the_saved_scores(results):
    folder, _ = results
    with np.load(folder / "seed0" / "scores.npz") as file:
        scores = dict(file)
    wrong = scores["noise_mask"].astype(bool)
    order = np.lexsort((-scores["label_loss"], -scores["aum"]))
    dropped = order[: wrong.sum()]
    watch = json.loads((folder / "seed0" / "watch.json").read_text())["values"]
    kept = json.loads((folder / "seed0" / "kept-aum.json").read_text())["values"]
    assert watch["ranking"]["aum"]["fnr_at_rate"] == pytest.approx(1 - wrong[dropped].sum() / wrong.sum())
    keep = np.setdiff1d(np.arange(len(wrong)), dropped)
    assert kept["pure_rate"] == pytest.approx((~wrong[keep]).mean())
    assert kept["rows"] == len(keep)


def test_table_names_every_method(results):
    _, output = results
    for text in ("all rows, as they are", "oracle", "online filter", "score2, mean", "AUM"):
        assert text in output


def test_second_call_skips_and_a_damaged_cell_is_made_again(results):
    folder, _ = results
    cells = sorted((folder / "seed0").glob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in cells}
    wanted = (folder / "seed0" / "oracle.json").read_text()
    (folder / "seed0" / "oracle.json").write_text(wanted[: len(wanted) // 2])
    assert run("--out", str(folder.parent)).exit_code == 0
    changed = {path.name for path in cells if path.stat().st_mtime_ns != before[path]}
    assert changed == {"oracle.json"}
    again = json.loads((folder / "seed0" / "oracle.json").read_text())
    assert again["values"] == json.loads(wanted)["values"]


def test_summary_is_the_mean_over_seeds(results):
    folder, _ = results
    table = report.summary(folder)
    oracle = json.loads((folder / "seed0" / "oracle.json").read_text())["values"]
    assert table["oracle"]["test_accuracy"]["mean"] == pytest.approx(oracle["test_accuracy"][-1])
    assert table["oracle"]["test_accuracy"]["count"] == 1


@pytest.mark.parametrize("kind", ["symmetric", "pair-flip", "class-dependent", "instance-dependent"])
def test_noise_kinds_are_seeded(kind):
    digits = data.load("digits")
    first, again, other = (noisy_labels(digits, kind, 0.3, None, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.labels, other.labels)
    assert 0.05 < first.noise_mask.mean() < 0.4


@pytest.mark.parametrize("form", ["pt", "npy", "npz", "txt"])
def test_labels_from_files(form, tmp_path):
    digits = data.load("digits")
    given = (digits.labels.numpy() + 1) % 10
    path = tmp_path / f"labels.{form}"
    if form == "pt":
        torch.save({"worse_label": given, "clean_label": digits.labels.numpy()}, path)
    elif form == "npy":
        np.save(path, given)
    elif form == "npz":
        np.savez(path, worse_label=given)
    else:
        np.savetxt(path, given, fmt="%d")
    name = path.with_name(path.name + ":worse_label") if form in ("pt", "npz") else path
    found = noisy_labels(digits, "file", 0.0, name, 0)
    assert np.array_equal(found.labels, given)
    assert found.noise_mask.all()


def test_label_file_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"worse_label": Trap()}, tmp_path / "labels.pt")
    with pytest.raises(LabelFileError, match="cannot be read"):
        noisy_labels(data.load("digits"), "file", 0.0, tmp_path / "labels.pt:worse_label", 0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "no-such"], "`dataset` must be one of"),
        (["--dataset", "no-such.npz"], "that exists"),
        (["--noise-kind", "file"], "needs `--label-file"),
        (["--subset", "99999"], "`subset` must lie in"),
        (["--scores", "nonsense"], "must be among"),
        (["--noise", "1.5"], "less than or equal to 1"),
    ],
)
def test_bad_settings_end_with_a_message(arguments, message, tmp_path):
    result = run(*arguments, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert message in re.sub(r"[│\s]+", " ", result.output)
    assert not list(tmp_path.iterdir())


def test_npz_with_and_without_test_rows(tmp_path):
    generator = np.random.default_rng(0)
    x, y = generator.random((50, 1, 8, 8)), np.arange(50) % 3
    np.savez(tmp_path / "own.npz", x=x, y=y, x_test=x[:9], y_test=y[:9])
    np.savez(tmp_path / "split.npz", x=x, y=y)
    assert len(data.load(str(tmp_path / "own.npz")).test_x) == 9
    split = data.load(str(tmp_path / "split.npz"))
    assert len(split.x) == 40
    assert len(split.test_x) == 10
    assert split.num_classes == 3


def test_missing_files_say_where_to_put_them(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    with pytest.raises(data.DataError, match="--data-dir or LOSSBUF_DATA"):
        data.load("mnist", tmp_path)


def test_it_says_how_long_it_takes_and_when_a_seed_is_done(tmp_path):
    first = run("--out", str(tmp_path), "--seeds", "2", "--scores", "aum")
    assert first.exit_code == 0
    assert re.match(r"10 trainings of 3 epochs on c\w+: about \d+ seconds?, as a few steps suggest\.\n", first.stderr)
    assert re.search(r"Seed 0, 1 of 2, is done after \d+ seconds?\.\nSeed 1, 2 of 2, is done", first.stderr)
    again = run("--out", str(tmp_path), "--seeds", "2", "--scores", "aum")
    assert again.stderr.startswith("All trainings were done before.\n")


def test_the_length_that_is_announced_is_about_right(tmp_path):
    settings = noisy.Settings(
        dataset="digits", noise_kind="symmetric", noise=0.4, keep="known", network="convnet", width=16, epochs=8,
        batch_size=64, lr=0.05, subset=None, label_file=None,
    )  # fmt: skip
    seed = noisy.SeedRun(data.load("digits"), settings, 0, tmp_path, device="cpu")
    announced = duration.of_training(seed.data, seed.make_network, seed.train_settings)
    start = time.perf_counter()
    seed.retrain("all", np.arange(len(seed.labels)))
    taken = time.perf_counter() - start
    assert taken / 5 < announced < 5 * taken


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"), (1, "1 second"), (1.6, "2 seconds"), (60, "60 seconds"), (99.4, "99 seconds"),
        (99.6, "2 minutes"), (600, "10 minutes"), (5900, "98 minutes"), (7200, "2.0 hours"), (360000, "100.0 hours"),
    ],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert duration.in_words(seconds) == words
