"""The benchmarks of condensation at their smallest."""

import json

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from benchmarks.condense import experiment as condense
from benchmarks.condense import report as condense_report
from benchmarks.condense import speed as condense_speed
from condensation.artifact import CondensedSet
from lossbuf.networks import ConvNet

runner = CliRunner()


def tiny(shape, classes):
    return ConvNet(shape[0], classes, shape[1:], width=4, depth=2)


def run(folder, *arguments):
    small = ["--networks", "2", "--eval-epochs", "2", "--iterations", "2", "--subset", "150", "--device", "cpu"]
    found = runner.invoke(condense.app, [*arguments, *small, "--out", str(folder)])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.slow
def test_every_method_once_and_a_second_call_that_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(condense.NETWORKS, "convnet2", tiny)
    output = run(tmp_path, "--ipc", "1", "--test-on", "convnet2,mlp")
    cells = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {cell["settings"]["method"] for cell in cells} == set(condense.METHODS)
    for cell in cells:
        method, values = cell["settings"]["method"], cell["values"]
        own = "mlp" if method in ("dd", "ld") else "convnet2"
        assert cell["settings"]["network"] == own
        assert f"| digits | 1 | {method} |" in output
        assert values["size"] == 10
        assert {name: len(scores) for name, scores in values["accuracies"].items()} == {"convnet2": 2, "mlp": 2}
        made = tmp_path / "sets" / f"digits-{method}-ipc1-{cell['settings']['network']}-seed0"
        assert made.with_suffix(".npz").exists() == made.with_suffix(".png").exists() == ("losses" in values)
        if "losses" in values:
            assert len(CondensedSet.load(made.with_suffix(".npz"))) == 10
    assert (tmp_path / "digits.png").stat().st_size > 0
    assert not list((tmp_path / "state").iterdir())
    monkeypatch.setattr(condense, "compute", lambda *_: pytest.fail("computed again"))
    assert run(tmp_path, "--ipc", "1", "--test-on", "convnet2,mlp") == output


def test_tables_name_data_sets_methods_and_networks():
    assert condense.TABLES["dc3"][1] == ("dd", "dc")
    for sets, methods in condense.TABLES.values():
        assert set(sets) <= set(condense.DATASETS)
        assert set(methods) <= set(condense.METHODS)
    assert set(condense.METHODS) <= set(condense_report.ORDER)
    found = runner.invoke(condense.app, ["--methods", "nonsense"])
    assert found.exit_code == 2


def test_an_interrupted_cell_goes_on_and_time_ends_one(tmp_path, monkeypatch):
    monkeypatch.setitem(condense.NETWORKS, "convnet2", tiny)
    arguments = ["--methods", "dc", "--ipc", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(condense, "tested", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.invoke(condense.app, [*arguments, "--iterations", "2", "--subset", "150", "--out", str(tmp_path)],
                          catch_exceptions=False)  # fmt: skip
    (state,) = (tmp_path / "state").iterdir()
    assert len(torch.load(state, weights_only=True)["losses"]) == 2
    run(tmp_path, *arguments)
    run(tmp_path / "soon", *arguments, "--minutes", "0.0001")
    (cell,) = (tmp_path / "soon").glob("*.json")
    assert len(json.loads(cell.read_text())["values"]["losses"]) == 1


def test_the_picture_has_a_class_a_column(tmp_path):
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4).contiguous()
    small = CondensedSet(x=x, labels=torch.tensor([0, 0, 1, 1, 2, 2]), method="DM")
    condense.save(small, tmp_path / "set")
    shown = imread(tmp_path / "set.png")[..., 0]
    assert shown.shape == (3 * 10, 3 * 16)
    np.testing.assert_allclose(shown[6::18, 6::18], [[0, 0.4, 0.8], [0.2, 0.6, 1]], atol=0.01)
    assert CondensedSet.load(tmp_path / "set.npz").num_classes == 3


def test_figures_beside_the_published():
    cell = {"dataset": "mnist", "method": "dc", "ipc": 1, "network": "convnet3", "dtype": "float32", "seconds": 3.0,
            "losses": [2.0, 1.0], "accuracies": {"convnet3": [0.9, 0.92], "mlp": [0.5]}, "seed": 0}  # fmt: skip
    _, first, second = condense_report.accuracy_table([cell])
    assert first[3:7] == ["2", "convnet3", "91.0 ±1.0 (2)", "91.7 ±0.5"]
    assert second[4:7] == ["convnet3 -> mlp", "50.0 ±0.0 (1)", ""]
    assert condense_report.published(cell | {"ipc": 5}, "convnet3") is None
    assert condense_report.bars([cell], "mnist").axes


REFERENCE = """
import torch
from scipy.ndimage.interpolation import rotate
from tests.benchmarks.test_condense import tiny


def get_network(model, channel, num_classes, im_size):
    return tiny((channel, *im_size), num_classes)


def match_loss(gw_syn, gw_real, args):
    rows = [(a.flatten(1), b.flatten(1)) for a, b in zip(gw_real, gw_syn) if a.ndim > 1]
    return sum((1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum() for a, b in rows)


def epoch(mode, dataloader, net, optimizer, criterion, args, aug):
    for x, y in dataloader:
        loss = criterion(net(x), y)
        if mode == "train":
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
"""


def test_speed_beside_a_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(condense_speed.architectures, "convnet3", tiny)
    for name, value in {"BATCH": 8, "TEST_ROWS": 8, "CASES": {"small": ((1, 8, 8), 2)}}.items():
        monkeypatch.setattr(condense_speed, name, value)
    monkeypatch.delitem(condense_speed.sys.modules, "utils", raising=False)
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "utils.py").write_text(REFERENCE)
    condense_speed.main(folder, "small", 1, compiled=False, out=tmp_path / "out")
    values = json.loads((tmp_path / "out" / "small.json").read_text())["values"]
    ours, low, reference = values["ours"], values["ours, bfloat16"], values["reference"]
    assert ours["distance"] == pytest.approx(reference["distance"], rel=1e-5)
    assert ours["error"] < 1e-5 < low["error"] < 0.5
    outer, inner = condense_speed.loops(2)
    for found in (ours, low, reference):
        expected = outer * found["step"] + (outer - 1) * inner * found["epoch"]
        assert found["iteration"] == pytest.approx(expected)
        assert found["with evaluation"] >= found["iteration"]
        assert np.isfinite(list(found.values())).all()
    monkeypatch.delitem(condense_speed.sys.modules, "utils", raising=False)
    with pytest.raises(condense_speed.typer.BadParameter, match="checkout"):
        condense_speed.main(tmp_path, "small", 1, compiled=False, out=tmp_path / "none")


def test_a_part_too_quick_to_time_has_no_ratio():
    parts = dict.fromkeys(("gradients", "step", "epoch", "train", "test", "iteration", "with evaluation"), 2.0)
    values = {
        "ours": parts | {"epoch": 0.0, "distance": 1.0, "error": 0.0},
        "reference": parts | {"distance": 1.0, "error": 0.0},
    }
    _, ours, _ = condense_speed.table({"small": values})
    assert ours[3:5] == ["2 s (1.00x)", "0 s"]


def test_data_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setitem(condense.NETWORKS, "convnet2", tiny)
    draws = np.random.default_rng(0)
    x = draws.random((220, 1, 8, 8), np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(220) % 3)
    words = ["--dataset", str(tmp_path / "own.npz"), "--methods", "random", "--ipc", "1", "--network", "convnet2"]
    output = run(tmp_path / "out", *words)
    assert [path.name for path in (tmp_path / "out").glob("*.json")] == ["own-random-ipc1-convnet2-seed0.json"]
    assert "random" in output
    assert condense.data_sets("digits, a.npz") == ["digits", "a.npz"]
    assert runner.invoke(condense.app, ["--dataset", "own.txt"]).exit_code == 2
    assert runner.invoke(condense.app, ["--dataset", str(tmp_path / "none.npz")]).exit_code == 2
