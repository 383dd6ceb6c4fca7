"""How long an iteration of gradient matching takes, part by part, beside a checkout of the code published with it.

    git clone https://github.com/VICO-UoE/DatasetCondensation DIR
    python -m benchmarks.condense.speed --reference DIR
    python -m benchmarks.condense.speed --reference DIR --device cuda

Protocol. ConvNet-3, 10 classes, 256 real images a class and step, noise in place of images: MNIST's shape with 1 image
a class, and CIFAR-10's with 10. Parts: the *gradients* of all classes' real batches; a whole *step* of the images
(those, the synthetic ones', the distance, the images' gradient); an *epoch* of the network's training on the synthetic
images; *evaluation*, an epoch of one network's training on the set (train) and a pass over 1,000 test images (test).
Ours and the reference take turns, and of several turns the median counts. An iteration is put together from its parts
by the published loops: ipc 10 has 10 steps and 9 times 50 epochs. In the last column one network is evaluated, 300
epochs and 10,000 test images, every ``--evaluate-every`` iterations; the reference evaluates 20 networks 3 times in
1000.

Both get the same weights and the same batches; the distance and the gradient of the images are compared. The
reference's own functions are called (its networks, distance, epochs); its loop over the classes is written out here,
since there it is part of a script. Ours runs plain and with ``compiled=True``, which takes no part in the
evaluation. Without ``--reference`` only ours is timed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import time
import types
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.common import results
from benchmarks.common.command import listed
from benchmarks.common.tables import markdown
from condensation.evaluate import EvalSettings, evaluate
from condensation.learned.run import Progress
from condensation.matching.class_gradients import class_gradients
from condensation.matching.distance import gradient_distance
from condensation.matching.gradient import GradientMatching, loops
from lossbuf.files import write_whole
from lossbuf.networks import architectures
from lossbuf.training import seeded

CASES = {"mnist ipc 1": ((1, 28, 28), 1), "cifar10 ipc 10": ((3, 32, 32), 10)}
CLASSES, BATCH, TEST_ROWS = 10, 256, 1_000
PARTS = ("gradients", "step", "epoch", "train", "test")


@dataclass(frozen=True)
class Case:
    """What both are given."""

    shape: tuple[int, int, int]
    ipc: int
    real: Tensor
    synthetic: Tensor
    test: Tensor
    network: nn.Module
    device: torch.device

    @classmethod
    def of(cls, shape: tuple[int, int, int], ipc: int, device: torch.device) -> Case:
        """Noise, and one network's first weights."""
        draw = torch.Generator().manual_seed(0)
        real, synthetic, test = (
            torch.randn(count, *shape, generator=draw).to(device)
            for count in (CLASSES * BATCH, CLASSES * ipc, TEST_ROWS)
        )
        with seeded(0, device):
            network = architectures.convnet3(shape, CLASSES).to(device)
        return cls(shape, ipc, real, synthetic, test, network, device)

    def labels(self, rows: Tensor) -> Tensor:
        """Of the real or the synthetic images: class after class."""
        return torch.arange(CLASSES, device=self.device).repeat_interleave(len(rows) // CLASSES)


class Ours:
    """The library, through what it offers."""

    def __init__(self, case: Case, dtype: str, *, compiled: bool = False) -> None:
        self.case, self.dtype, self.compiled = case, dtype, compiled
        # A graph belongs to the parameters it was made for, and is made in the turn that warms up.
        self.network = cast(nn.Module, torch.compile(case.network, dynamic=False)) if compiled else case.network
        self.rows_at_once = 32 if case.device.type == "cpu" else BATCH
        self.together = case.device.type == "cuda"

    def gradients(self) -> list[Tensor]:
        """Of all classes' real batches."""
        x = self.case.real.unflatten(0, (CLASSES, BATCH))
        low = torch.autocast(self.case.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")
        with low:
            return class_gradients(
                self.network, x, torch.ones(x.shape[:2], device=x.device), together=self.together,
                rows_at_once=self.rows_at_once,
            )  # fmt: skip

    def image_gradient(self) -> tuple[Tensor, Tensor]:
        """Distance, and gradient of the synthetic images."""
        target = self.gradients()
        x = self.case.synthetic.unflatten(0, (CLASSES, self.case.ipc)).clone().requires_grad_()
        ones = torch.ones(x.shape[:2], device=x.device)
        found = class_gradients(self.case.network, x, ones, create_graph=True)
        pairs = [(a.flatten(0, 1), b.flatten(0, 1)) for a, b in zip(target, found, strict=True) if a.ndim > 2]
        distance = gradient_distance([a for a, _ in pairs], [b for _, b in pairs])
        return distance.detach(), torch.autograd.grad(distance, x)[0].flatten(0, 1)

    def fit(self, outer_steps: int, inner_epochs: int, rows: int = BATCH) -> float:
        """Seconds of an iteration with so many real images a class: the second of two."""
        ends: list[float] = []

        def note(_: Progress) -> None:
            _wait(self.case.device)
            ends.append(time.perf_counter())

        real = self.case.real.unflatten(0, (CLASSES, BATCH))[:, :rows].flatten(0, 1)
        labels = self.case.labels(real).cpu().numpy()
        GradientMatching(
            self.case.ipc, iterations=2, outer_steps=outer_steps, inner_epochs=inner_epochs, dtype=self.dtype,
            compiled=self.compiled, device=str(self.case.device), random_state=0,
        ).fit(real.cpu().numpy(), labels, callback=note)  # fmt: skip
        return ends[1] - ends[0]

    def seconds(self, part: str) -> float:
        """Seconds of a part."""
        if part == "step":
            return self.fit(1, 0)
        if part == "epoch":
            return max(0.0, self.fit(2, 10, rows=2) - self.fit(2, 0, rows=2)) / 10
        if part in ("train", "test"):
            x, test = self.case.synthetic, self.case.test[: 1 if part == "train" else None]
            epochs = 10 if part == "train" else 1
            settings = EvalSettings(networks=1, epochs=epochs, device=str(self.case.device))
            labels = torch.zeros(len(test), dtype=torch.int64)
            seconds = timed(
                self.case.device,
                lambda: evaluate(x, self.case.labels(x), test, labels, settings=settings, num_classes=CLASSES),
            )
            return seconds / epochs if part == "train" else seconds
        return timed(self.case.device, self.gradients)


class Reference:
    """The published code, from a checkout."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.utils = case, _module(folder)
        self.args = Namespace(device=str(case.device), dis_metric="ours", dsa=False, dc_aug_param=None, lr_net=0.01,
                              epoch_eval_train=10, batch_train=BATCH)  # fmt: skip
        channels, *size = case.shape
        with contextlib.redirect_stdout(io.StringIO()):
            self.network = self.utils.get_network("ConvNet", channels, CLASSES, tuple(size)).to(case.device).train()
        with torch.no_grad():
            for own, given in zip(self.network.parameters(), case.network.parameters(), strict=True):
                own.copy_(given)

    def _gradients(self, x: Tensor, label: int, create_graph: bool = False) -> tuple[Tensor, ...]:
        labels = torch.full((len(x),), label, device=x.device)
        loss = F.cross_entropy(self.network(x), labels)
        return torch.autograd.grad(loss, list(self.network.parameters()), create_graph=create_graph)

    def gradients(self) -> list[tuple[Tensor, ...]]:
        """Of all classes' real batches, one after the other."""
        return [self._gradients(x, label) for label, x in enumerate(self.case.real.split(BATCH))]

    def image_gradient(self) -> tuple[Tensor, Tensor]:
        """Distance, and gradient of the synthetic images."""
        images = self.case.synthetic.clone().requires_grad_()
        distance = torch.zeros((), device=images.device)
        for label, x in enumerate(self.case.real.split(BATCH)):
            real = [part.detach().clone() for part in self._gradients(x, label)]
            own = images[label * self.case.ipc : (label + 1) * self.case.ipc]
            distance = distance + self.utils.match_loss(self._gradients(own, label, True), real, self.args)
        distance.backward()
        return distance.detach(), _some(images.grad)

    def _train(self, epochs: int) -> None:
        dataset = TensorDataset(self.case.synthetic, self.case.labels(self.case.synthetic))
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True)
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.0)
        criterion = nn.CrossEntropyLoss()
        for _ in range(epochs):
            self.utils.epoch("train", loader, self.network, optimizer, criterion, self.args, aug=False)

    def _test(self) -> None:
        dataset = TensorDataset(self.case.test, torch.zeros(len(self.case.test), dtype=torch.int64))
        loader = DataLoader(dataset, batch_size=BATCH)
        self.utils.epoch("test", loader, self.network, None, nn.CrossEntropyLoss(), self.args, aug=False)

    def seconds(self, part: str) -> float:
        """Seconds of a part."""
        calls: dict[str, tuple[Callable[[], Any], int]] = {
            "gradients": (self.gradients, 1),
            "step": (self.image_gradient, 1),
            "epoch": (lambda: self._train(10), 10),
            "train": (lambda: self._train(10), 10),
            "test": (self._test, 1),
        }
        call, times = calls[part]
        return timed(self.case.device, call) / times


def _module(folder: Path) -> Any:
    """Its ``utils``; SciPy has since moved a function that it imports, and that is not called here."""
    name = "scipy.ndimage.interpolation"
    moved: Any = types.ModuleType(name)
    moved.rotate = scipy.ndimage.rotate
    known = sys.modules.get(name)
    sys.modules[name] = moved
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("utils")
    except ImportError as error:
        rule = "must be a checkout of VICO-UoE/DatasetCondensation"
        raise typer.BadParameter(f"{rule}: {error}", param_hint="--reference") from error
    finally:
        sys.path.remove(str(folder))
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known


def _some(gradient: Tensor | None) -> Tensor:
    return torch.zeros(()) if gradient is None else gradient


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - start


def measure(case: Case, folder: Path | None, repeats: int, every: float, compiled: bool) -> dict[str, Any]:
    """Medians of all parts, and what they add up to."""
    runs: dict[str, Ours | Reference] = {"ours": Ours(case, "float32"), "ours, bfloat16": Ours(case, "bfloat16")}
    if compiled:
        runs["ours, compiled"] = Ours(case, "float32", compiled=True)
        runs["ours, bfloat16, compiled"] = Ours(case, "bfloat16", compiled=True)
    if folder is not None:
        runs["reference"] = Reference(case, folder)
    turns: dict[str, dict[str, list[float]]] = {name: {part: [] for part in PARTS} for name in runs}
    for turn in range(repeats + 1):
        for part in PARTS:
            for name, run in runs.items():
                seconds = run.seconds(part)
                if turn:  # the first warms up
                    turns[name][part].append(seconds)
    outer, inner = loops(case.ipc)
    values: dict[str, Any] = {}
    expected = runs["reference" if folder else "ours"].image_gradient()
    for name, parts in turns.items():
        found = {part: float(np.median(seconds)) for part, seconds in parts.items()}
        found["iteration"] = outer * found["step"] + (outer - 1) * inner * found["epoch"]
        found["with evaluation"] = found["iteration"] + (300 * found["train"] + 10 * found["test"]) / every
        distance, gradient = runs[name].image_gradient()
        found["distance"] = float(distance)
        found["error"] = float((gradient - expected[1]).norm() / expected[1].norm())
        values[name] = found
    return values


def table(cells: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A row a case and code: seconds, and how many times the reference takes."""
    columns = ("gradients", "step", "epoch", "train", "test", "iteration", "with evaluation")
    rows = [["case", "code", *columns, "distance", "error of gradient"]]
    for case, values in cells.items():
        for name, found in values.items():
            reference = values.get("reference")
            cells_of = [
                f"{found[part]:.3g} s"
                + (f" ({reference[part] / found[part]:.2f}x)" if reference and found[part] else "")
                for part in columns
            ]
            rows.append([case, name, *cells_of, f"{found['distance']:.5g}", f"{found['error']:.1e}"])
    return rows


def main(
    reference: Annotated[Path | None, typer.Option(help="A checkout of VICO-UoE/DatasetCondensation.")] = None,
    case: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(CASES)}.")] = ",".join(CASES),
    repeats: Annotated[int, typer.Option(min=1, help="Turns; their median counts.")] = 3,
    evaluate_every: Annotated[float, typer.Option(min=1, help="Iterations to an evaluation of one network.")] = 17,
    compiled: Annotated[bool, typer.Option(help="Ours compiled, too; needs a C++ compiler.")] = True,
    device: Annotated[str, typer.Option(help="Where to compute.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/condense_speed"),
) -> None:
    """Time an iteration of gradient matching, part by part, beside the published code."""
    cells: dict[str, dict[str, Any]] = {}
    for name in listed("case", case, CASES):
        settings = {"case": name, "repeats": repeats, "evaluate_every": evaluate_every, "device": device,
                    "reference": reference is not None, "compiled": compiled}  # fmt: skip
        one = Case.of(*CASES[name], torch.device(device))
        path = out / f"{name.replace(' ', '-')}.json"
        cells[name] = results.cell(
            path, settings, lambda one=one: measure(one, reference, repeats, evaluate_every, compiled)
        )
    text = markdown(table(cells))
    Console(soft_wrap=True).print(text, highlight=False, markup=False)
    write_whole(out / "tables.md", lambda file: file.write(text.encode()))


if __name__ == "__main__":
    typer.run(main)
