"""A record on the host, or in mapped files, has the bits of one beside the network."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lossbuf import LossBufferCallback
from lossbuf.errors import LossBufferWarning
from lossbuf.recording.dynamics import SampleDynamics
from lossbuf.recording.host_record import HostRecord, allocated
from lossbuf.recording.sample_statistics import SUSPICIONS
from tests.states import assert_same_bits, kept

SETTINGS = {
    "watch": {"rank_by": "aum"},
    "filter": {"mode": "filter", "warmup": 1},
    "reweight": {"mode": "reweight", "warmup": 2, "planted": 0.05},
}
ROWS, CLASSES = 300, 4


def _run(callback, epochs, seed=0, device="cpu", *, start=0):
    """Train a little: logits that know the labels better from epoch to epoch, of which a tenth are wrong."""
    draw = torch.Generator().manual_seed(seed)
    labels = callback.dynamics.labels.cpu()
    true = (labels + (torch.rand(ROWS, generator=draw) < 0.1)) % CLASSES
    found = []
    for epoch in range(epochs):
        order, noise = torch.randperm(ROWS, generator=draw), torch.randn(ROWS, CLASSES, generator=draw)
        if epoch < start:
            continue
        for rows in order.split(64):
            logits = noise[rows] + (epoch + 2) * torch.nn.functional.one_hot(true[rows], CLASSES)
            loss = callback.loss(logits.to(device), labels[rows].to(device), rows.to(device))
            found.append(loss.cpu())
        callback.end_epoch()
    return found


def _labels():
    return torch.arange(ROWS) % CLASSES


@pytest.fixture(params=["cpu", "folder"])
def storage(request, tmp_path):
    """Both places that are not the network's."""
    return "cpu" if request.param == "cpu" else tmp_path


@pytest.mark.parametrize("name", SETTINGS)
def test_same_bits_wherever_the_record_lies(name, storage, device):
    usual = LossBufferCallback(_labels(), **SETTINGS[name])
    other = LossBufferCallback(_labels(), storage=storage, **SETTINGS[name])
    losses = [_run(callback, 4, device=device) for callback in (usual, other)]
    assert_same_bits(*losses)
    if device.type == "cpu":
        assert_same_bits(dict(usual.state_dict()), dict(other.state_dict()))
        assert usual.report().equals(other.report())
    assert usual.select().tolist() == other.select().tolist()
    assert other.dynamics.noted.device.type == "cpu"
    assert other.dynamics.stamp.device.type == device.type
    assert name == "watch" or other.posterior.outputs.sums.device.type == "cpu"


def test_statistics_of_an_epoch_that_goes_on(storage, device):
    usual, other = SampleDynamics(_labels()).to(device), SampleDynamics(_labels(), storage).to(device)
    for dynamics in (usual, other):
        callback = LossBufferCallback(_labels(), rank_by="aum")
        callback.dynamics = dynamics
        _run(callback, 2, device=device)
        logits, rows = torch.eye(CLASSES, device=device).repeat(3, 1), torch.arange(12, device=device)
        callback.update(logits, _labels()[:12].to(device), rows)
        callback.flush()
    found = {name: value.cpu() for name, value in vars(usual.statistics()).items()}
    assert found["count"][:12].tolist() == [3] * 12
    assert_same_bits(found, {name: value.cpu() for name, value in vars(other.statistics()).items()})
    some = slice(7, 90)
    parts = {name: value[some] for name, value in found.items()}
    assert_same_bits(parts, {name: value.cpu() for name, value in vars(other.statistics(some)).items()})


@pytest.mark.parametrize("name", SUSPICIONS)
def test_a_ranking_is_read_part_by_part(name, monkeypatch):
    monkeypatch.setattr("lossbuf.recording.dynamics._READ_ROWS", 7)
    callback = LossBufferCallback(_labels(), rank_by="aum")
    _run(callback, 2)
    whole, found = callback.statistics(), callback.dynamics.ranking(name)
    assert_same_bits(torch.from_numpy(found.suspicion), whole.suspicion(name))
    assert_same_bits(torch.from_numpy(found.label_loss), whole.label_loss)
    assert_same_bits(torch.from_numpy(found.other_class), whole.other_class)


def test_saved_in_one_place_and_loaded_in_another(storage, tmp_path):
    settings = SETTINGS["filter"]
    whole = LossBufferCallback(_labels(), **settings)
    _run(whole, 4)
    half = LossBufferCallback(_labels(), storage=storage, **settings)
    _run(half, 2)
    half.save(tmp_path / "half.pt")
    for place in (None, "cpu", tmp_path):
        resumed = LossBufferCallback(_labels(), storage=place, **settings)
        resumed.load(tmp_path / "half.pt")
        _run(resumed, 4, start=2)
        assert_same_bits(kept(whole), kept(resumed))
    assert [path.name for path in tmp_path.iterdir()] == ["half.pt"]  # mapped files have no name


def test_what_waits_is_a_copy_and_comes_in_order():
    record, told = HostRecord("cpu"), []
    values = torch.tensor([1.0])
    record.later(lambda taken: told.append(taken.item()), values)
    values.fill_(2.0)
    assert told == []
    record.later(lambda taken: told.append(taken.item()), values)
    assert told == [1.0]
    record.settle()
    record.settle()
    assert told == [1.0, 2.0]
    at_once = HostRecord()
    at_once.later(lambda taken: told.append(taken is values), values)
    assert told[-1] is True


def test_moving_the_module_leaves_the_record():
    dynamics = SampleDynamics(_labels(), "cpu").to("meta")
    assert dynamics.labels.device.type == dynamics.stamp.device.type == "meta"
    assert {dynamics.get_buffer(name).device.type for name in ("noted", "sums", "last", "tally", "count")} == {"cpu"}
    assert SampleDynamics(_labels(), "cpu").half().sums.dtype == torch.float32


@pytest.mark.parametrize("bad", ["nowhere", "file", "", 3, True])
@pytest.mark.usefixtures("no_shape_checks")
def test_storage_must_be_a_folder(bad, tmp_path):
    (tmp_path / "file").touch()
    place = tmp_path / bad if isinstance(bad, str) and bad else bad
    with pytest.raises(ValueError, match="`storage` must be None, 'cpu' or a folder that is there, got "):
        LossBufferCallback(_labels(), storage=place)


@pytest.mark.parametrize(("shape", "fill"), [((0,), 1.0), ((3, 5), float("-inf")), ((), 2.0)])
def test_a_mapped_tensor_is_as_any_other(shape, fill, tmp_path):
    found = allocated(shape, torch.float32, fill, str(tmp_path))
    assert_same_bits(found, torch.full(shape, fill))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this system")
def test_no_room_is_an_error_and_leaves_nothing(tmp_path):
    code = (
        "import resource, signal, sys, torch, lossbuf\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
        "try:\n"
        "    lossbuf.LossBufferCallback(torch.zeros(10**6, dtype=torch.int64), 2, rank_by='aum', storage=sys.argv[1])\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "File too large" in found.stdout
    assert not list(Path(tmp_path).iterdir())


def test_large_records_are_told_of_as_before(monkeypatch):
    monkeypatch.setattr("lossbuf.detection.posterior.LARGE", 100)
    with pytest.warns(LossBufferWarning, match="GiB"):
        LossBufferCallback(_labels(), storage="cpu")
