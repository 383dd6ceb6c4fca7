"""Wrong labels planted on purpose: how many of them are found tells how many of the others are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from lossbuf import checks
from lossbuf.detection import transition
from lossbuf.detection.warmup import Warmup
from lossbuf.recording.mean_outputs import MeanOutputs

LEAST_FOUND = 0.5
"""Share of the planted labels that must lie above a threshold for it to count in :func:`noise_rate`."""


class PlantedLabels(nn.Module):
    """A share of the rows, which train with a wrong label for a while.

    Rows and labels are drawn as wrong labels come: a row of likely true class i in proportion to 1 - transition[i, i],
    its new label from the rest of that row of the matrix, and never the label it was given. From then on the planted
    labels are treated as all others: trained on, read, and dropped where they are suspect. In the end the rows get
    their own labels back, which are judged by outputs that did not learn them, and what was planted is taken out of
    the transition matrix and the noise rate.

    Args:
        n_samples: Number of rows.
        share: Share of the rows to plant, above 0 and below 1.
        after: Epochs before they are planted, at least 1: as many as it takes to estimate a transition matrix.
        seed: Decides what is drawn.

    Raises:
        ValueError: If a setting is out of range, or the share is less than one row.
    """

    rows: Tensor
    labels: Tensor
    own: Tensor
    likely: Tensor
    position: Tensor

    def __init__(self, n_samples: int, share: float, *, after: int, seed: int) -> None:
        super().__init__()
        checks.positive_int("n_samples", n_samples)
        if not 0 < checks.rate("planted", share) < 1 or round(share * n_samples) < 1:
            rule = f"must be a share of the {n_samples} rows: at least one, and less than all"
            raise ValueError(checks.problem("planted", rule, share))
        self.share, self.after, self.sown = share, checks.positive_int("after", after), False
        self.seed = checks.non_negative_int("planted_seed", seed)
        self.register_buffer("rows", torch.zeros(round(share * n_samples), dtype=torch.int64))
        self.register_buffer("labels", torch.zeros(len(self.rows), dtype=torch.int64))
        self.register_buffer("own", torch.zeros(len(self.rows), dtype=torch.int64))
        self.register_buffer("likely", torch.zeros(len(self.rows), dtype=torch.int64))
        self.register_buffer("position", torch.full((n_samples,), -1, dtype=torch.int64))

    @torch.no_grad()
    def sow(self, recorded: MeanOutputs, labels: Int[Tensor, " n_samples"]) -> None:
        """Draw rows and labels; waits for the GPU.

        Args:
            recorded: Outputs so far. Where fewer rows were seen than were to be planted, nothing is; nor with two
                classes, where a wrong label of a wrong label is right.
            labels: Given labels.
        """
        outputs, usable = recorded.probabilities(), recorded.seen
        if int(usable.sum()) < len(self.rows) or outputs.shape[1] < 3:
            return
        matrix = transition.from_anchors(outputs, labels, usable).matrix
        joint = transition.deconvolved(outputs, matrix) * matrix.to(outputs.dtype).t()[labels]
        likely = joint.argmax(1)
        generator = torch.Generator().manual_seed(self.seed)
        wrong = matrix.clone().fill_diagonal_(0)
        rows = torch.multinomial((wrong.sum(1)[likely] * usable).cpu(), len(self.rows), generator=generator)
        rows = rows.to(labels.device)
        odds = wrong[likely[rows]].scatter(1, labels[rows].unsqueeze(1), 0.0)
        drawn = torch.multinomial(odds.cpu(), 1, generator=generator).squeeze(1)
        self.rows.copy_(rows)
        self.labels.copy_(drawn)
        self.own.copy_(labels[rows])
        self.likely.copy_(likely[rows])
        self.position[self.rows] = torch.arange(len(rows), device=rows.device)
        self.sown = True

    def trained_on(
        self, labels: Integer[Tensor, " batch"], rows: Integer[Tensor, " batch"]
    ) -> Integer[Tensor, " batch"]:
        """The labels of a batch, with those planted; does not wait for the GPU."""
        position = self.position[rows.clamp(0, len(self.position) - 1)]
        return torch.where(position >= 0, self.labels[position.clamp(min=0)].to(labels.dtype), labels)

    def all_labels(self, labels: Int[Tensor, " n_samples"]) -> Int[Tensor, " n_samples"]:
        """The labels of all rows, with those planted."""
        return labels.index_put((self.rows,), self.labels) if self.sown else labels

    def removed(
        self, matrix: Float[Tensor, "num_classes num_classes"], labels: Int[Tensor, " n_samples"]
    ) -> Float[Tensor, "num_classes num_classes"]:
        """The transition matrix without what was planted, float64.

        Args:
            matrix: Estimated from the labels with those planted.
            labels: Given labels.
        """
        shares = transition.true_shares(matrix, self.all_labels(labels)) * len(labels)
        counts = torch.zeros_like(matrix).index_put(
            (self.likely, self.labels), torch.ones_like(self.likely, dtype=matrix.dtype), accumulate=True
        )
        rest = (matrix - counts / shares.clamp(min=1).unsqueeze(1)).clamp(min=0)
        known = rest.sum(1, keepdim=True) > 0
        return torch.where(known, rest / rest.sum(1, keepdim=True).clamp(min=1e-12), matrix)

    def rate_without(self, rate: float) -> float:
        """The noise rate without what was planted: rate = share + (1 - share) of the rest."""
        return max(0.0, (rate - self.share) / (1 - self.share))

    @property
    def identity(self) -> tuple[float, int, int]:
        """What decides the draw: share, epochs before it, seed."""
        return self.share, self.after, self.seed

    def get_extra_state(self) -> dict[str, Any]:
        """What is no tensor."""
        return {"sown": self.sown}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        self.sown = bool(state["sown"])


def planting(n_samples: int, share: float, seed: int, warm_up: Warmup, rank_by: str) -> PlantedLabels | None:
    """What a callback's settings ask for; ``None`` for a share of 0.

    Raises:
        ValueError: If there is no posterior to draw from, or no middle of the warm-up.
    """
    if not checks.rate("planted", share):
        return None
    if rank_by != "posterior":
        raise ValueError(checks.problem("planted", "needs `rank_by` to be 'posterior'", repr(rank_by)))
    if warm_up.longest < 2:
        raise ValueError(checks.problem("planted", "needs a `warmup` of at least 2 epochs", f"{warm_up.longest}"))
    return PlantedLabels(n_samples, share, after=1 if warm_up.automatic else warm_up.longest // 2, seed=seed)


class PlantedCheck(NamedTuple):
    """What became of the planted labels.

    Attributes:
        rows: The rows they were planted on, shape ``(n_planted,)``.
        suspicion: Of the planted labels, as that of all others; not of the rows' own labels, shape ``(n_planted,)``.
        found: Share of them among the suspects: an estimate of the share of all wrong labels that was found.
        found_error: Its standard error, from planting so few.
    """

    rows: NDArray[np.int64]
    suspicion: NDArray[np.float32]
    found: float
    found_error: float

    @classmethod
    def of(cls, rows: NDArray[np.int64], suspicion: NDArray[np.float32], threshold: float) -> PlantedCheck:
        """With ``threshold`` the suspicion from which on a label is suspect."""
        known = suspicion[~np.isnan(suspicion)]
        found = float((known >= threshold).mean()) if len(known) else float("nan")
        # As with one found and one missed more: no share is known for sure.
        steady = (found * len(known) + 1) / (len(known) + 2)
        return cls(rows, suspicion, found, float(np.sqrt(steady * (1 - steady) / max(len(known), 1))))


def noise_rate(suspicion: ArrayLike, planted: ArrayLike) -> float:
    """Share of wrong labels: (share of rows above t) / (share of planted labels above t) where it is surely smallest.

    The second is what a threshold t finds of wrong labels, so the ratio is the noise rate where all rows above t are
    wrong, and more elsewhere. The least of many such ratios would be too low by chance: t is where the ratio plus two
    of its standard errors is least. Thresholds that find less than :data:`LEAST_FOUND` do not count: what is planted
    late is learnt less by heart, and differs from other wrong labels most at the top of the ranking. NaN where there is
    nothing to compare.

    Args:
        suspicion: Of rows whose labels were left alone; NaN where never seen.
        planted: Of planted labels.

    Source:
        Mixture proportion from positive and unlabelled samples: Scott 2015; the bound: Garg et al. 2021.

    Differs from the papers:
        A bound of two standard errors instead of one that holds for all thresholds at once.
    """
    above, found = _shares_above(suspicion, planted)
    ratio = above / np.maximum(found, 1e-12)
    of_planted = (1 - found) / np.maximum(found, 1e-12) / max(np.size(planted), 1)
    bound = ratio * (1 + 2 * np.sqrt(of_planted + (1 - above) / above / max(len(above), 1)))
    bound[found < LEAST_FOUND] = np.inf
    return float(min(1.0, ratio[np.argmin(bound)])) if np.isfinite(bound).any() else float("nan")


def false_discovery(suspicion: ArrayLike, planted: ArrayLike, noise_rate: float) -> NDArray[np.float64]:
    """For each row the share of right labels among all rows at least as suspect, shape ``(n_samples,)``.

    It is 1 - noise_rate (share of planted labels found) / (share of rows suspect), in [0, 1]; NaN for rows never seen.

    Args:
        suspicion: Of all rows, NaN where never seen, shape ``(n_samples,)``.
        planted: Of planted labels, shape ``(n_planted,)``.
        noise_rate: Share of wrong labels.

    Raises:
        ValueError: If the rate is out of range or nothing was planted.

    Example:
        >>> false_discovery([3.0, 2.0, 1.0, 0.0], [2.5, 2.5], 0.25)
        array([1.        , 0.5       , 0.66666667, 0.75      ])
    """
    checks.rate("noise_rate", noise_rate)
    if not np.size(planted):
        raise ValueError(checks.problem("planted", "must hold at least one value", "none"))
    values = np.asarray(suspicion, dtype=np.float64)
    above, found = _shares_above(values, planted)
    seen = ~np.isnan(values)
    curve = np.full(len(values), np.nan)
    order = np.searchsorted(np.sort(values[seen]), values[seen], side="left")
    curve[seen] = np.clip(1 - noise_rate * found / above, 0, 1)[order]
    return curve


def _shares_above(suspicion: ArrayLike, planted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of the rows seen and of the planted labels that are at or above each row's value, values ascending."""
    values = np.asarray(suspicion, dtype=np.float64)
    values = np.sort(values[~np.isnan(values)])
    known = np.sort(np.asarray(planted, dtype=np.float64))
    known = known[~np.isnan(known)]
    above = 1 - np.searchsorted(values, values, side="left") / max(len(values), 1)
    found = 1 - np.searchsorted(known, values, side="left") / max(len(known), 1)
    return above, found
