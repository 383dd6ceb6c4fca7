"""The state of ``LossBufferCallback``: a resumed run is the run that was not interrupted, bit by bit."""

import copy
import os

import pytest
import torch

from lossbuf import LossBufferCallback
from tests.states import assert_same_bits, kept, reloaded

LABELS = [0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2, 0, 1, 2, 1, 0, 2, 0, 1, 2]
SIZES = (9, 4, 4, 3)
"""Rows of the steps of an epoch: the first is the largest, and so decides when a block of 16 is full."""


def _callback(capacity=16, **settings):
    callback = LossBufferCallback(LABELS, window=settings.pop("window", 5), **settings)
    callback.stage.capacity = capacity
    return callback


def _steps(epochs=3):
    """Logits and rows of all steps; ``None`` ends an epoch."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        order = torch.randperm(len(LABELS), generator=draw)
        for rows in order.split(SIZES):
            yield 2 * torch.randn(len(rows), 3, generator=draw), rows
        yield None


def _take(callback, step):
    if step is None:
        callback.end_epoch()
        return None
    logits, rows = step
    device = callback.sample_weights.device
    return callback.loss(logits.to(device), torch.tensor(LABELS)[rows].to(device), rows.to(device))


def _trained(**settings):
    """A callback in the middle of its second epoch, with a part-filled block."""
    callback = _callback(**settings)
    for step in list(_steps())[:8]:
        _take(callback, step)
    assert callback.stage.filled == 8
    assert callback.epoch == 1
    return callback


def _by_file(callback, fresh, path):
    callback.save(path)
    fresh.load(path)
    return fresh


@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")  # random outputs are to be doubted
@pytest.mark.parametrize("resume_at", [0, 3, 7, 14])
@pytest.mark.parametrize(("mode", "by_file"), [("watch", True), ("filter", False), ("reweight", True)])
def test_a_resumed_run_is_the_uninterrupted_run(resume_at, mode, by_file, device, tmp_path):
    settings = {"mode": mode, "warmup": 1, "noise_rate": 0.3}
    straight, resumed = (_callback(**settings).to(device) for _ in range(2))
    for number, step in enumerate(_steps()):
        if number == resume_at:
            fresh = _callback(**settings).to(device)
            resumed = _by_file(resumed, fresh, tmp_path / "state") if by_file else reloaded(resumed, fresh)
            assert_same_bits(kept(resumed), kept(straight))
        assert_same_bits(_take(resumed, step), _take(straight, step))
    assert_same_bits(kept(resumed), kept(straight))
    assert resumed.report().equals(straight.report())


def test_blocks_end_within_an_epoch():
    # Guards the test above: a block must be digested, and hold several steps, before the epoch ends.
    callback = _callback()
    filled = []
    for step in list(_steps(1))[:-1]:
        _take(callback, step)
        filled.append(callback.stage.filled)
    assert filled == [9, 4, 8, 3]


def test_resumed_with_warnings_told_once(tmp_path):
    callback = _callback()
    logits = torch.zeros(2, 3)
    logits[0] = float("nan")
    callback.update(logits, torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.warns(UserWarning, match="Epoch 1: 1 samples gave logits or losses that are NaN"):
        callback.end_epoch()
    resumed = _by_file(callback, _callback(), tmp_path / "state")
    resumed.end_epoch()  # warnings are errors here
    assert resumed.rejected() == callback.rejected()


def test_reading_the_state_changes_nothing(tmp_path):
    callback = _trained()
    before = kept(callback)
    callback.save(tmp_path / "state")
    callback.load(tmp_path / "state")
    assert_same_bits(kept(callback), before)
    assert os.listdir(tmp_path) == ["state"]


def test_a_kept_state_does_not_follow_the_run():
    callback = _trained()
    extra = callback.state_dict()["_extra_state"]
    before = copy.deepcopy(extra)
    for step in list(_steps())[8:]:
        _take(callback, step)
    assert_same_bits(extra, before)


def test_the_callers_labels_are_left_alone():
    labels = torch.tensor(LABELS)
    callback = LossBufferCallback(labels, window=5)
    state = kept(_trained())
    labels.fill_(0)
    assert callback.dynamics.labels.tolist() == LABELS
    callback.load_state_dict(state)
    assert labels.tolist() == [0] * len(LABELS)


def test_ids_belong_to_the_state(tmp_path):
    names = [f"image-{row}" for row in range(len(LABELS))]
    callback = _callback(ids=names)
    callback.update(torch.zeros(1, 3), torch.tensor([2]), ["image-2"])
    callback.save(tmp_path / "state")
    _callback(ids=names).load(tmp_path / "state")
    for other in (None, names[::-1]):
        with pytest.raises(ValueError, match="`state_dict` must be of the same labels and ids"):
            _callback(ids=other).load(tmp_path / "state")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("path", [("cpu", "cuda"), ("cuda", "cpu")])
def test_moved_in_the_middle_of_an_epoch(path):
    callback = _trained()
    for device in path:
        callback.to(device)
        callback.report()
        for step in list(_steps())[8:]:
            _take(callback, step)
    assert callback.epoch == 5


# ---- states that do not fit -----------------------------------------------------------------------------------------


def _assert_refused(callback, path, message):
    """Loading raises, and what was collected stays."""
    before = kept(callback)
    with pytest.raises(ValueError, match=message):
        callback.load(path)
    assert_same_bits(kept(callback), before)


def _resave(path, change):
    """Change what a saved file holds."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: LossBufferCallback(LABELS, 4, window=5), "must have num_classes 4, got 3"),
        (lambda: LossBufferCallback(LABELS[:-1], window=5), "must have n_samples 19, got 20"),
        (lambda: LossBufferCallback(LABELS, window=6), "must have window 6, got 5"),
        (lambda: LossBufferCallback(LABELS[::-1], window=5), "must be of the same labels and ids, got another"),
    ],
)
def test_state_of_another_callback(other, message, tmp_path):
    _trained().save(tmp_path / "state")
    _assert_refused(other(), tmp_path / "state", f"`state_dict` {message}")


def _set(*keys, value):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def _drop(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("kind", value="lossbuf.can"), "`path` must be a lossbuf.callback file, got .* with lossbuf.can"),
        (_drop("state"), "`state_dict` must be one of a LossBufferCallback, got another"),
        (_set("state", value=[1]), "`state_dict` must be one of a LossBufferCallback, got another"),
        (_set("state", "_extra_state", value=1), "`state_dict` must be one of a LossBufferCallback, got another"),
        (_set("state", "_extra_state", "version", value=1), "`state_dict` must have version 5, got 1"),
        (_drop("state", "_extra_state", "version"), "`state_dict` must have version 5, got None"),
        (_drop("state", "_extra_state", "told"), "`state_dict` must hold _extra_state as it was saved"),
        (_drop("state", "dynamics.sums"), "`state_dict` must hold dynamics.sums as it was saved, got NoneType"),
        (_drop("state", "dynamics._extra_state"), "`state_dict` must hold dynamics._extra_state as it was saved"),
        (_set("state", "stranger", value=1), "`state_dict` must be one of a LossBufferCallback, got key 'stranger'"),
        (_set("state", "counter", value=torch.zeros(4)), "`state_dict` must hold counter as it was saved, got Tensor"),
        (_set("state", "counter", value=torch.zeros(9, dtype=torch.int64)), "`state_dict` must hold counter as it was"),
    ],
)
def test_changed_state(change, message, tmp_path):
    callback = _trained()
    callback.save(tmp_path / "state")
    _resave(tmp_path / "state", change)
    for other in (callback, _callback()):
        _assert_refused(other, tmp_path / "state", message)


def test_damaged_files(tmp_path, generator):
    callback, path = _trained(), tmp_path / "state"
    callback.save(path)
    whole = path.read_bytes()
    for size in torch.randint(len(whole), (20,), generator=generator).tolist():
        path.write_bytes(whole[:size])
        _assert_refused(callback, path, "`path` must be a file saved by lossbuf, got .*: it is damaged")
    numbers = callback.dynamics.sums.numpy().tobytes()
    for place in range(0, len(numbers), 50):
        damaged = bytearray(whole)
        damaged[whole.index(numbers) + place] ^= 1
        path.write_bytes(damaged)
        _assert_refused(callback, path, "`path` must be a file saved by lossbuf, got .*: it is damaged")


class Hostile:
    """Makes a folder where it is unpickled by a careless reader."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_file_is_not_run(tmp_path):
    callback, path = _trained(), tmp_path / "state"
    callback.save(path)
    _resave(path, _set("state", "counter", value=Hostile(tmp_path / "ran")))
    _assert_refused(callback, path, "or holds more than tensors and plain values")
    assert os.listdir(tmp_path) == ["state"]


def test_missing_file(tmp_path):
    callback = _trained()
    before = kept(callback)
    with pytest.raises(FileNotFoundError):
        callback.load(tmp_path / "state")
    assert_same_bits(kept(callback), before)


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state"
    callback = _trained()
    callback.save(path)
    before, save = path.read_bytes(), torch.save

    def half(content, file):
        save({"half": torch.zeros(100)}, file)
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", half)
    callback.end_epoch()
    with pytest.raises(OSError, match="No space left"):
        callback.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state"]


def test_a_state_of_other_labels_is_refused_as_a_part_too():
    mine, other = LossBufferCallback([0, 1, 0], 2), LossBufferCallback([1, 1, 0], 2)
    state = torch.nn.ModuleDict({"part": other}).state_dict()
    with pytest.raises(ValueError, match="same labels and ids"):
        torch.nn.ModuleDict({"part": mine}).load_state_dict(state)
    again = torch.nn.ModuleDict({"part": mine})
    again.load_state_dict(again.state_dict())
