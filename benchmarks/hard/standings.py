"""Values of cells -> standings: ours beside the best peer, and what it falls short of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.common.results import read_json
from benchmarks.hard.suite import SUITE

KEYS = ["dataset", "noise_kind", "noise"]

DEVELOPMENT = 100
"""The first seed on which choices may be made. Results are those of lower seeds."""

SILENT = 0.8
"""Share of the best peer's F1 below which a result must come with a warning."""

OF_RANKING = 0.95
"""Share of the best F1 of the ranking that the own cut should reach."""

RATE_ERROR, RATE_ERROR_SCARCE, RATE_ERROR_CLEAN = 0.03, 0.05, 0.01
"""Largest error of the noise rate; that where classes have few rows or people were wrong; and that of clean data."""

CLEAN_FLAGGED, KNOWN_WELL = 0.01, 0.95
"""Largest share flagged of clean data that some peer predicts with at least this accuracy."""


def cells(folder: Path) -> pd.DataFrame:
    """One row for each cell and method; no rows where the folder has no cell of the suite."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*/*.json")):
        content = read_json(path)
        if content is None or content.get("settings", {}).get("suite") != "hard":
            continue
        settings, values = content["settings"], content["values"]
        common = {name: settings[name] for name in (*KEYS, "seed")} | {"true_noise_rate": values["true_noise_rate"]}
        accuracy = max(values.get("out_of_sample_accuracy", {}).values(), default=float("nan"))
        common |= {"accuracy": accuracy, "n_samples": values["n_samples"]}
        for name, found in values["methods"].items():
            more = {key: values.get(key) for key in ("noise_rate_interval", "warnings")} if name == "ours" else {}
            rows.append({**common, "method": name, **found, **more})
    if not rows:
        return pd.DataFrame()
    known = {name: place for place, name in enumerate(SUITE)}
    table = pd.DataFrame(rows).drop_duplicates([*KEYS, "seed", "method"])  # a cell may be there without peers too
    order = table["dataset"].map(lambda name: known.get(name, len(known)))
    return table.assign(order=order).sort_values(["order", "noise_kind", "noise", "seed"], kind="stable")


def of_seeds(table: pd.DataFrame, development: bool) -> pd.DataFrame:
    """The rows of the seeds that are reported, or of those on which choices are made."""
    return table.loc[(table["seed"] >= DEVELOPMENT) == development]


def standings(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each data set and noise.

    A best peer has the best mean over the seeds that ours has too, or over all seeds where ours was not computed yet.
    "First" means as good as that, or within one standard error of it in paired differences.
    """
    found: list[dict[str, Any]] = []
    for key in dict.fromkeys(table[KEYS].itertuples(index=False, name=None)):
        part = table.loc[(table[KEYS] == list(key)).all(axis=1)]
        peers = {name: part.loc[part["method"] == name].set_index("seed") for name in dict.fromkeys(part["method"])}
        ours = peers.pop("ours", None)
        row: dict[str, Any] = dict(zip(KEYS, key, strict=True))
        row |= {"seeds": part["seed"].nunique() if ours is None else len(ours)}
        row["true rate"] = float(part.drop_duplicates("seed")["true_noise_rate"].mean())
        row["accuracy"] = float(part["accuracy"].mean())
        for name, sign in (("auroc", 1), ("fnr_at_rate", -1), ("f1", 1)):
            row |= _against(ours, peers, name, sign)
        flagged = {name: float(_values(part, "flagged_share").mean()) for name, part in peers.items()}
        by_cleanlab = [share for name, share in flagged.items() if name.startswith("cleanlab")]
        row["flagged by cleanlab"] = min(by_cleanlab, default=float("nan"))
        if ours is not None:
            row |= _of_ours(ours)
            row["silent failure"] = row["f1"] < SILENT * row.get("f1 of best peer", 0.0) and row["warned"] < len(ours)
            row["falls short of"] = ", ".join(_shortcomings(row))
        found.append(row)
    return pd.DataFrame(found)


def _against(ours: pd.DataFrame | None, peers: dict[str, pd.DataFrame], name: str, sign: int) -> dict[str, Any]:
    """The best peer by one value, and whether ours is first."""
    row: dict[str, Any] = {}
    seeds = None if ours is None else ours.index
    means = {peer: float(_values(part, name, seeds).mean()) for peer, part in peers.items()}
    means = {peer: mean for peer, mean in means.items() if np.isfinite(mean)}
    best = max(means, key=lambda peer: sign * means[peer], default=None)
    if best is not None:
        row |= {f"{name} of best peer": means[best], f"{name}: best peer": best}
    if ours is not None:
        own = _values(ours, name)
        row[name] = float(own.mean())
        if best is not None:
            gap = sign * (own - _values(peers[best], name, seeds))
            error = float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else 0.0
            row[f"{name}: first"] = bool(gap.mean() + error >= 0)
    return row


def _values(part: pd.DataFrame, name: str, seeds: pd.Index | None = None) -> NDArray[np.float64]:
    column = part[name] if seeds is None else part[name].reindex(seeds)
    return column.to_numpy(dtype=float)


def _of_ours(ours: pd.DataFrame) -> dict[str, Any]:
    rates, true = _values(ours, "noise_rate"), _values(ours, "true_noise_rate")
    covered = [
        isinstance(interval, list) and interval[0] <= value <= interval[1]
        for interval, value in zip(ours["noise_rate_interval"], true, strict=True)
    ]
    return {
        "estimated rate": float(rates.mean()),
        "rate error": float(np.abs(rates - true).mean()),
        "best f1": float(_values(ours, "best_f1").mean()),
        "flagged": float(_values(ours, "flagged_share").mean()),
        "covered": sum(covered),
        "warned": sum(bool(texts) for texts in ours["warnings"]),
        "seconds": float(_values(ours, "seconds").mean()),
    }


def _shortcomings(row: dict[str, Any]) -> list[str]:
    """What the suite's aims are and ours does not reach."""
    if row["noise_kind"] == "clean":
        known_well = row["accuracy"] >= KNOWN_WELL
        most = CLEAN_FLAGGED if known_well else row["flagged by cleanlab"] / 2
        missed = {"flagged": row["flagged"] > most, "rate": known_well and row["rate error"] > RATE_ERROR_CLEAN}
    else:
        entry = SUITE.get(row["dataset"])
        uncertain = row["noise_kind"] in ("human", "real") or (entry is not None and entry.scarce)
        missed = {
            "FNR": row.get("fnr_at_rate: first") is False,
            "F1 of best peer": row.get("f1: first") is False,
            "F1 of ranking": row["f1"] < OF_RANKING * row["best f1"],
            "rate": row["rate error"] > (RATE_ERROR_SCARCE if uncertain else RATE_ERROR),
        }
    return [name for name, is_missed in missed.items() if is_missed]
