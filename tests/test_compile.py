"""Under ``torch.compile`` and autocast the same is collected."""

import shutil

import pytest
import torch
from torch import nn

from lossbuf import LossBufferCallback
from lossbuf.recording.buffers import ClassLossBuffer, LossBuffers
from lossbuf.recording.losses import sample_losses
from tests.states import assert_same_bits, kept

pytestmark = [
    # What checks shapes while testing would be traced too.
    pytest.mark.usefixtures("no_shape_checks", "fresh_compiler"),
    # torch's compiler looks at .grad and hides this warning of its own, but not where warnings are errors.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]

_HAS_COMPILER = shutil.which("g++") is not None or shutil.which("clang++") is not None


def _batches(generator, num_classes, sizes):
    for size in sizes:
        labels = torch.randint(num_classes, (size,), generator=generator)
        logits = 3 * torch.randn(size, num_classes, generator=generator)
        logits[::5] = float("nan")
        yield logits, labels


@pytest.mark.parametrize(("backend", "num_classes"), [("eager", 3), ("aot_eager", 70)])
def test_rings_compile_in_one_graph(backend, num_classes, generator):
    compiled, plain = LossBuffers(num_classes, 8), LossBuffers(num_classes, 8)
    update = torch.compile(compiled.update, fullgraph=True, backend=backend)
    for logits, labels in _batches(generator, num_classes, (5, 5, 6, 40, 41, 1)):
        losses = sample_losses(logits, labels)
        update(losses, labels)
        plain.update(losses, labels)
        assert_same_bits(kept(compiled), kept(plain))


def test_one_ring_compiles_in_one_graph(generator):
    compiled, plain = ClassLossBuffer(3, 4), ClassLossBuffer(3, 4)
    update = torch.compile(compiled.update, fullgraph=True, backend="eager")
    for size in (2, 3, 9):
        losses, labels = torch.rand(size, generator=generator), torch.randint(-1, 4, (size,), generator=generator)
        update(losses, labels)
        plain.update(losses, labels)
    assert_same_bits(kept(compiled), kept(plain))


@pytest.mark.parametrize("num_classes", [3, 70])
def test_losses_compile_in_one_graph(num_classes, generator):
    compiled = torch.compile(sample_losses, fullgraph=True, backend="aot_eager")
    for logits, labels in _batches(generator, num_classes, (5, 8)):
        for one, other in zip(compiled(logits, labels), sample_losses(logits, labels), strict=True):
            torch.testing.assert_close(one, other, equal_nan=True)


class Training:
    """A small training run, whose step can be compiled."""

    def __init__(self, **settings):
        draw = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(30, 4, generator=draw), torch.randint(3, (30,), generator=draw)
        self.network = nn.Linear(4, 3)
        with torch.no_grad():
            self.network.weight.copy_(torch.randn(3, 4, generator=draw))
            self.network.bias.zero_()
        self.callback = LossBufferCallback(self.y, window=5, noise_rate=0.2, **settings)
        self.callback.stage.capacity = 16
        self.losses = []

    def step(self, x, y, rows):
        """Forward and loss."""
        return self.callback.loss(self.network(x), y, rows)

    def run(self, step, batch=7):
        """Train for two epochs; blocks end within them."""
        for _ in range(2):
            for rows in torch.arange(30).split(batch):
                loss = step(self.x[rows], self.y[rows], rows)
                loss.backward()
                with torch.no_grad():
                    for parameter in self.network.parameters():
                        parameter -= 0.1 * parameter.grad
                        parameter.grad = None
                self.losses.append(loss.detach())
            self.callback.end_epoch()
        return self

    def assert_like(self, other):
        """The same losses, and the same collected."""
        torch.testing.assert_close(torch.stack(self.losses), torch.stack(other.losses))
        assert torch.equal(self.callback.statistics().count, other.callback.statistics().count)
        for name, value in vars(self.callback.statistics()).items():
            torch.testing.assert_close(value, getattr(other.callback.statistics(), name), rtol=1e-4, atol=1e-4)
        for name, value in self.callback.rings.state_dict().items():
            torch.testing.assert_close(value, other.callback.rings.state_dict()[name])
        assert self.callback.select().tolist() == other.callback.select().tolist()


@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")  # random outputs are to be doubted
@pytest.mark.parametrize(("backend", "mode"), [("eager", "watch"), ("aot_eager", "reweight")])
def test_a_compiled_step_collects_the_same(backend, mode):
    plain, compiled = (Training(mode=mode, warmup=1) for _ in range(2))
    plain.run(plain.step)
    graphs = []

    def counted(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    compiled.run(torch.compile(compiled.step, backend=counted))
    assert graphs
    compiled.assert_like(plain)


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_COMPILER, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::lossbuf.LossBufferWarning")
def test_a_step_compiled_by_inductor_collects_the_same():
    plain, compiled = (Training(mode="reweight", warmup=1) for _ in range(2))
    plain.run(plain.step, batch=6)
    compiled.run(torch.compile(compiled.step), batch=6)
    compiled.assert_like(plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    plain, cast = Training(), Training()
    plain.run(plain.step)

    def step(x, y, rows):
        with torch.autocast("cpu", dtype):
            logits = cast.network(x)
            assert logits.dtype == dtype
            loss = cast.callback.loss(logits, y, rows)
        assert loss.dtype == torch.float32
        return loss

    cast.run(step)
    assert cast.callback.rejected() == dict.fromkeys(cast.callback.rejected(), 0)
    for name in ("label_loss", "predicted_loss", "aum"):
        found, expected = (getattr(one.callback.statistics(), name) for one in (cast, plain))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_autocast_digests_in_float32(generator):
    # A block is digested within the step, so within autocast: the sums must not be of low precision.
    labels = torch.randint(3, (20,), generator=generator)
    logits = torch.randn(20, 3, generator=generator)
    inside, outside = (LossBufferCallback(labels, window=7) for _ in range(2))
    for callback in (inside, outside):
        callback.stage.capacity = 8
    with torch.autocast("cpu", torch.bfloat16):
        for rows in torch.arange(20).split(5):
            inside.update(logits[rows], labels[rows], rows)
        inside.end_epoch()
    for rows in torch.arange(20).split(5):
        outside.update(logits[rows], labels[rows], rows)
    outside.end_epoch()
    assert_same_bits(kept(inside), kept(outside))
