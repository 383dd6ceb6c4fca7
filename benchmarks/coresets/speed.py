"""How fast coresets are chosen, beside apricot-select and submodlib, and how time and memory grow with the rows.

    pip install "lossbuf[coreset-peers]" && python -m benchmarks.coresets --table speed,growth

Protocol. *speed*: facility location by 1 - distance / largest distance on 5,000 rows of Gaussian blobs, 500 to choose,
64 and 512 features, float32; distances are part of the time; each library's quickest exact optimiser and, for ours, all
strategies. The objective of every choice is taken again in float64. *growth*: each cell in a process of its own, whose
peak resident memory is told. A pass is one matrix-vector product over all rows, in the same process.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from sklearn.datasets import make_blobs

from benchmarks.common import results
from benchmarks.common.apart import apart, peak_bytes
from condensation import greedy

SPEED = ((5_000, 64, 500), (5_000, 512, 500))
GROWTH = (
    *(("k-center", n, 512, 500) for n in (12_500, 50_000, 200_000)),
    *(("herding", n, 512, 500) for n in (12_500, 50_000, 200_000)),
    *(("facility location", n, 64, 500) for n in (2_500, 5_000, 10_000)),
)
REPEATS = 3


def _apricot(x: NDArray[np.float32], k: int) -> list[int]:
    module = importlib.import_module("apricot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chooser = module.FacilityLocationSelection(k, metric="euclidean", optimizer="lazy")
        return [int(row) for row in chooser.fit(x).ranking]


def _submodlib(x: NDArray[np.float32], k: int) -> list[int]:
    module = importlib.import_module("submodlib")
    function = module.FacilityLocationFunction(
        n=len(x), mode="dense", data=x, metric="euclidean", separate_rep=False
    )  # fmt: skip
    chosen = function.maximize(
        budget=k, optimizer="LazyGreedy", stopIfZeroGain=False, stopIfNegativeGain=False, show_progress=False
    )
    return [row for row, _ in chosen]


PEERS = {"apricot-select": _apricot, "submodlib": _submodlib}


def _ours(strategy: greedy.Strategy) -> Callable[[NDArray[np.float32], int], list[int]]:
    return lambda x, k: greedy.facility_location(torch.from_numpy(x), k, strategy=strategy).indices.tolist()


def objective(x: NDArray[np.float32], chosen: list[int]) -> float:
    """Sum of the largest distance less that to the nearest chosen row, in float64."""
    rows = torch.from_numpy(x).double()
    far = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return float((far.max() - far[:, chosen].amin(1)).sum())


def speed(out: Path) -> None:
    """Compute the cells of the speed table that are not done yet."""
    methods = {f"ours, {strategy}": _ours(strategy) for strategy in ("lazy", "batched", "stochastic")}
    missing = []
    for name, choose in PEERS.items():
        try:
            choose(np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), 3)  # compiles, where it does
            methods[name] = choose
        except ImportError:
            missing.append(name)
    if missing:
        Console(stderr=True).print(f"left out, not installed: {', '.join(missing)} (extra: coreset-peers)")
    for n, d, k in SPEED:
        x = np.asarray(make_blobs(n, d, centers=20, cluster_std=4.0, random_state=0)[0], dtype=np.float32)
        seconds: dict[str, float] = {}
        reached: dict[str, float] = {}
        for _ in range(REPEATS):  # in turns, so that a busy moment of the machine hits all
            for name, choose in methods.items():
                start = time.perf_counter()
                chosen = choose(x, k)
                took = time.perf_counter() - start
                seconds[name] = min(took, seconds.get(name, took))
                reached[name] = objective(x, chosen)
        for name, took in seconds.items():
            values = {
                "seconds": took,
                "objective_ratio": reached[name] / reached["ours, lazy"],
                "times_slower": took / seconds["ours, lazy"],
            }
            settings = {"n": n, "d": d, "k": k, "method": name, "peers_missing": missing}
            path = out / "speed" / f"n{n}-d{d}-{name.replace(', ', '-')}.json"
            results.write_json(path, {"settings": settings, "environment": results.environment(), "values": values})


def measure(method: str, n: int, d: int, k: int) -> dict[str, Any]:
    """Time and peak memory of one choice; to be called in a process of its own."""
    x = torch.empty(n, d)
    x.normal_(generator=torch.Generator().manual_seed(0))
    one = torch.ones(d)
    passes = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mv(x, one)
        passes.append(time.perf_counter() - start)
    start = time.perf_counter()
    if method == "k-center":
        greedy.k_center(x, k)
    elif method == "herding":
        greedy.herding(x, k)
    else:
        greedy.facility_location(x, k)
    took = time.perf_counter() - start
    return {
        "seconds": took,
        "peak_gib": peak_bytes() / 2**30,
        "seconds_a_pass": min(passes),
        "passes_a_pick": took / k / min(passes),
    }


def growth(out: Path) -> None:
    """Compute the cells of the growth table that are not done yet."""
    for method, n, d, k in GROWTH:
        settings = {"method": method, "n": n, "d": d, "k": k}
        path = out / "growth" / f"{method.replace(', ', '-').replace(' ', '-')}-n{n}.json"
        results.cell(path, settings, lambda settings=settings: apart(measure, settings))
