"""A training killed again and again, and resumed, ends with the bits of one that was left alone.

This file is the script too: ``python test_kill_resume.py FOLDER PLANS`` forks a child a run, so that torch is imported
once only. A child kills itself with SIGKILL where its plan says, without any clean-up, as a full memory would do.
"""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EPOCHS, STEPS_AN_EPOCH, CHECKPOINT_STEPS = 6, 6, 4
STEPS = EPOCHS * STEPS_AN_EPOCH

# Where a child dies, counted within the child: after so many forward passes (in the middle of a step), before the
# optimizer's, within the writing of the checkpoint, or when it is written but not yet in its place.
PLAN = [
    ("forward", 2),  # before any checkpoint
    ("write", 1),  # in the first
    ("forward", 6),
    ("replace", 1),
    ("optimizer", 5),
    ("write", 2),
    ("epoch", 1),  # an epoch ended, but not saved
    ("forward", 7),
]


def _die(_report=None):
    os.kill(os.getpid(), signal.SIGKILL)


def _doomed(kind, count, network, callback):
    """Put SIGKILL where ``kind`` says, at its ``count``-th time."""
    from lossbuf.files import whole as files
    from lossbuf.training import loop as training

    left = count

    def last():
        nonlocal left
        left -= 1
        return left == 0

    def before(function):
        return lambda *args, **options: _die() if last() else function(*args, **options)

    if kind == "forward":
        network.register_forward_hook(lambda *_: _die() if last() else None)
    elif kind == "optimizer":
        training.torch.optim.SGD.step = before(training.torch.optim.SGD.step)
    elif kind == "epoch":
        end_epoch = callback.end_epoch
        callback.end_epoch = lambda: (end_epoch(), last() and _die())
    elif kind == "replace":
        files.os.replace = before(files.os.replace)
    elif kind == "write":
        save = files.torch.save

        def half(content, file):
            save(content, file)
            if last():
                file.truncate(file.tell() // 2)
                file.flush()
                _die()

        files.torch.save = half


def _run(checkpoint, result, doom):
    """One run, in a forked child."""
    import torch
    from torch import nn

    from lossbuf import LossBufferCallback
    from lossbuf.training import TrainSettings, accuracy, build, train

    torch.set_num_threads(1)
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(41) % 3
    x = torch.randn(41, 1, 4, 4, generator=draws) + labels[:, None, None, None]
    settings = TrainSettings(epochs=EPOCHS, batch_size=7, lr=0.05, seed=3, device="cpu")

    def factory():
        layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3)
        return nn.Sequential(*layers)

    network = build(factory, settings)
    callback = LossBufferCallback(labels, window=5, mode="filter", warmup=2, noise_rate=0.2)
    if doom is not None:
        _doomed(*doom, network, callback)
    history = train(
        network, x, labels, settings, callback=callback, checkpoint=checkpoint, checkpoint_steps=CHECKPOINT_STEPS,
        after_epoch=lambda trained: accuracy(trained, x, labels),
    )  # fmt: skip
    torch.save([dict(network.state_dict()), dict(callback.state_dict()), vars(history)], result)


def _main(folder, plans):
    """Run the plans, one child after the other; print how each ended and the step of the checkpoint it left."""
    import lossbuf  # noqa: F401  # once, before the forks
    from lossbuf.files import load_tensors

    runs = [(folder / name, doom) for name, plan in plans.items() for doom in (*plan, None)]
    for path, doom in runs:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _run(path, path.with_suffix(".result"), doom)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        saved = load_tensors(path, "lossbuf.training")["step"] if path.exists() else 0
        print(json.dumps([path.name, doom, os.waitstatus_to_exitcode(status), saved]))


def random_plan(seed):
    draws = random.Random(seed)
    kinds = ["forward", "forward", "optimizer", "write", "replace", "epoch"]
    plan = [(kind, draws.randint(1, 2)) if kind in ("write", "replace") else (kind, None) for kind in kinds]
    draws.shuffle(plan)
    return [(kind, count or (1 if kind == "epoch" else draws.randint(1, 9))) for kind, count in plan]


PLANS = {"alone": [], "listed": PLAN, "random 0": random_plan(0), "random 1": random_plan(1)}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Where the results lie, and the reports of every plan."""
    folder, root = tmp_path_factory.mktemp("killed"), Path(__file__).parent.parent
    command = [sys.executable, __file__, str(folder), json.dumps(PLANS)]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    output = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=300)
    assert output.returncode == 0, output.stderr
    reports = {name: [] for name in PLANS}
    for line in output.stdout.splitlines():
        name, *report = json.loads(line)
        reports[name].append(report)
    return folder, reports


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("name", list(PLANS)[1:])
def test_killed_runs_end_as_one_left_alone(name, ended):
    import torch

    from tests.states import assert_same_bits

    folder, reports = ended
    *killed, last = reports[name]
    assert [last] == reports["alone"] == [[None, 0, STEPS]]
    assert [report[0] for report in killed] == [list(doom) for doom in PLANS[name]]
    assert {report[1] for report in killed} == {-signal.SIGKILL}  # every one was killed, none went wrong
    saved = [report[2] for report in killed]
    assert saved == sorted(saved)  # nothing saved is lost
    assert {step % CHECKPOINT_STEPS for step in saved} == {0}
    assert any(0 < step < STEPS and step % STEPS_AN_EPOCH for step in saved)  # some go on from within an epoch

    alone, found = (torch.load(folder / f"{run}.result", weights_only=True) for run in ("alone", name))
    assert_same_bits(found, alone)  # network, callback, history
    assert alone[1]["sample_weights"].min() == 0  # the filter was on
    assert len(alone[2]["loss"]) == len(alone[2]["after_epoch"]) == EPOCHS


if __name__ == "__main__":
    _main(Path(sys.argv[1]), json.loads(sys.argv[2]))
