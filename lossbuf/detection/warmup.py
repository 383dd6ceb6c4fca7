"""When to stop believing the network: the end of the warm-up, from the losses of rows that it does not train on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from lossbuf import checks
from lossbuf.recording.starting_point import StartingPoint

AUTO = "auto"
"""Value of ``warmup`` with which the data decide when the warm-up ends."""

LONGEST = 6
"""Epochs of the longest automatic warm-up."""

UNKNOWN_LENGTH = 5
"""The same where the number of epochs of the training is not known."""

SHORT = 5
"""Epochs of a short training."""

HELD_ROWS = 500
"""Rows to hold back: enough for a standard error of .05 nats."""

HELD_SHARES = (0.05, 0.1)
"""The least and the largest share of the rows that is held back, but for small data."""

FEW_HELD, MOST_HELD = 100, 0.25
"""Of small data so many rows are held back, or this share where that is less."""

GAP = 0.2
"""Nats by which the given label of a row trained on must cost less than that of a row held back before the network is
said to memorize labels. Networks trained from scratch on images stay below .15 for a whole warm-up, also where 40 % of
the labels are wrong; networks on embeddings pass it within the second or third epoch."""

SHARE = 0.1
"""The same as a share of the entropy of the labels, which is small where there are few classes."""

JUMP = 0.15
"""The same for the loss that a row loses between two visits, where nothing is held back."""

SLOW = 0.1
"""Share of all that was learned so far, in nats, below which an epoch's progress counts as slow."""


class EpochLosses(NamedTuple):
    """Mean label losses of one epoch, in nats; NaN where there were no such rows.

    Attributes:
        quarters: Of the rows trained on, for each quarter of the epoch in the order of the steps.
        held: Of the rows held back.
        error: Standard error of the difference between held and trained rows, or of two quarters.
        right: Share of the rows held back whose given label was predicted.
    """

    quarters: tuple[float, float, float, float]
    held: float
    error: float
    right: float = math.nan

    @property
    def trained(self) -> float:
        """Mean label loss of the rows trained on."""
        return sum(self.quarters) / 4


class Warmup(nn.Module):
    """Decides when the warm-up ends, and knows whether labels were memorized by then.

    A network learns what the classes have in common before it memorizes single labels. With ``warmup="auto"`` some rows
    are recorded but not trained on, so that their label losses are out of sample. The warm-up ends when the network has
    memorized labels (:func:`memory` passes :data:`GAP`) and what it still learns about the rows held back is little
    (:func:`is_slow`), or after the longest warm-up. Where no row may be held back, since the training must not be
    changed, the loss that a row loses between two visits takes the place of the gap.

    Args:
        n_samples: Number of rows.
        warmup: Number of epochs, or ``"auto"``.
        epochs: Epochs of the whole training, where they are known.
        holds_back: Hold rows back; with ``"auto"`` only.
        least: Epochs that an automatic warm-up may take at least, however short the training is.
        seed: Decides which.

    Raises:
        ValueError: If ``warmup`` is neither a positive integer nor ``"auto"``, or leaves no epoch of the training.
    """

    held: Tensor

    def __init__(
        self,
        n_samples: int,
        warmup: int | str,
        epochs: int | None = None,
        *,
        holds_back: bool,
        least: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.epochs = None if epochs is None else checks.positive_int("epochs", epochs)
        self.automatic, self.filters, self.least = warmup == AUTO, holds_back, least
        self.longest = max(least, longest(epochs)) if warmup == AUTO else _fixed(warmup, epochs if holds_back else None)
        self.history: list[EpochLosses] = []
        self.ended_after: int | None = None
        self.memorized = self.restarted = self.within_epoch = False
        self.halved = self.attached = False
        self.learned = False  # whether the network predicts labels that it was not trained on better than chance
        self.start: StartingPoint | None = None
        self._loaded: Mapping[str, Any] | None = None  # of a state that was loaded before `attach`
        held = torch.zeros(n_samples, dtype=torch.bool)
        if self.automatic and holds_back:
            generator = torch.Generator().manual_seed(checks.non_negative_int("seed", seed))
            held[torch.randperm(n_samples, generator=generator)[: held_back(n_samples)]] = True
        self.holds_back = bool(held.any())
        self.register_buffer("held", held)

    def end_epoch(self, epoch: int, losses: EpochLosses, labels: LabelShares) -> bool:
        """Take note of an epoch, and decide.

        Args:
            epoch: Epochs ended so far, this one included.
            losses: Of this epoch.
            labels: What is known of the labels without a network.

        Returns:
            True from the epoch on with which the warm-up has ended.
        """
        if self.ended_after is not None:
            return True
        self.history.append(losses)
        self.learned = self.learned or has_learned(losses, labels.largest, int(self.held.sum()))
        memorizing = self.automatic and is_memorizing(self.history, labels.entropy)
        slow = self.automatic and self.learned and is_slow(self.history, labels.entropy)
        over = epoch >= self.longest or (memorizing and (slow or not self.holds_back))
        if self.epochs is None and self.holds_back:  # it may be a short training
            over = over or slow
        if over:
            self.ended_after, self.memorized = epoch, memorizing
        return over

    def is_half_way(self, rows: int, epoch: int) -> bool:
        """Whether half of the rows of the only epoch have come, for the first time.

        Args:
            rows: Rows of this epoch so far.
            epoch: Epochs ended so far.
        """
        if (
            not (self.automatic and self.filters and self.epochs == 1 and epoch == 0)
            or self.halved
            or self.ended_after is not None
        ):
            return False
        return 2 * rows >= len(self.held)

    def end_within(self, filters: bool) -> None:
        """Take note that the warm-up ended in the middle of the only epoch, and whether outputs decide from then on."""
        self.halved, self.within_epoch = True, filters

    def attach(self, network: nn.Module, optimizer: Optimizer, epochs: int | None = None) -> None:
        """Remember the weights that the training starts with, until the warm-up has ended.

        Args:
            network: The network that trains.
            optimizer: Its optimizer.
            epochs: Epochs of the whole training, where they are known.

        Raises:
            ValueError: If the network or the optimizer is not one, or a warm-up of a fixed number of epochs takes all
                of them.
        """
        if epochs is not None and self.epochs is None and self.ended_after is None:
            checks.positive_int("epochs", epochs)
            if self.automatic:
                self.epochs, self.longest = epochs, max(self.least, longest(epochs))
            elif self.filters:
                _fixed(self.longest, epochs)
        if not (self.automatic and self.filters) or self.ended_after is not None or self.longest == 1:
            return  # within the first epoch nothing is memorized
        if self.start is None or self.start.network is not network or self.start.optimizer is not optimizer:
            self.start, self.attached = StartingPoint(network, optimizer), True
            if self._loaded is not None:
                self.start.load(self._loaded)

    def leave_start(self, restores: bool) -> None:
        """Forget those weights, once the warm-up has ended.

        Args:
            restores: Whether to go back to them before, where labels were memorized.
        """
        if self.memorized and restores and self.start is not None:
            self.start.restore()
            self.restarted = True
        self.start = None

    @property
    def remaining(self) -> int | None:
        """Epochs of the training after the warm-up, where their number is known."""
        return None if self.epochs is None or self.ended_after is None else self.epochs - self.ended_after

    def prolong(self) -> bool:
        """Take an epoch more where a short training has one left and no labels were memorized; whether that is so."""
        left = self.remaining
        if (
            not self.automatic
            or self.memorized
            or left is None
            or left < 2
            or self.epochs is None
            or self.epochs > SHORT
        ):
            return False
        self.ended_after, self.longest = None, self.longest + 1
        return True

    @property
    def leaves_time(self) -> bool:
        """Whether enough of the training is left to start anew: twice the warm-up, or an unknown number of epochs."""
        return self.remaining is None or self.remaining >= 2 * (self.ended_after or 0)

    @property
    def identity(self) -> int | str:
        """What tells two settings apart."""
        return AUTO if self.automatic else self.longest

    def get_extra_state(self) -> dict[str, Any]:
        """What is not a tensor."""
        history = [
            [None if math.isnan(value) else value for value in (*losses.quarters, *losses[1:])]
            for losses in self.history
        ]
        start = self._loaded if self.ended_after is None else None
        start = start if self.start is None else self.start.state()
        numbers = {"ended_after": self.ended_after, "longest": self.longest, "epochs": self.epochs}
        return {"history": history, "start": start, **numbers, **{name: getattr(self, name) for name in _FLAGS}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` gave."""
        rows = [[math.nan if value is None else float(value) for value in row] for row in state["history"]]
        self.history = [EpochLosses((row[0], row[1], row[2], row[3]), *row[4:]) for row in rows]
        self.ended_after = state["ended_after"]
        for name in _FLAGS:
            setattr(self, name, bool(state[name]))
        self._loaded = state["start"]
        if self._loaded is None:  # the warm-up had ended, or nothing was attached
            self.start = None
        elif self.start is not None:
            self.start.load(self._loaded)
        if state["epochs"] is not None or self.epochs is None:  # else the length is known here alone
            self.longest, self.epochs = int(state["longest"]), state["epochs"]


_FLAGS = ("memorized", "restarted", "within_epoch", "halved", "attached", "learned")


def longest(epochs: int | None) -> int:
    """Epochs after which an automatic warm-up ends at the latest: half of all, at most :data:`LONGEST`.

    In a training of up to :data:`SHORT` epochs, as of pretrained networks, it is the first, in which every output comes
    before the network was trained on the row.
    """
    if epochs is None:
        return UNKNOWN_LENGTH
    return 1 if epochs <= SHORT else min(LONGEST, epochs // 2)


def held_back(n_samples: int) -> int:
    """Rows to hold back of so many: :data:`HELD_ROWS` within :data:`HELD_SHARES`, but at least :data:`FEW_HELD`."""
    least, most = HELD_SHARES
    usual = min(max(HELD_ROWS, least * n_samples), most * n_samples)
    return round(max(usual, min(FEW_HELD, MOST_HELD * n_samples)))


def memory(history: Sequence[EpochLosses]) -> float:
    """How much less the given label of a row costs because the network was trained on it, in nats; NaN if unknown.

    Where rows are held back it is the difference between their mean label loss and that of the others in the last
    epoch. Else it is the loss that goes from the last quarter of one epoch to the first of the next beyond what the
    quarters beside them lose: in between every row but few was visited once more, while the network hardly changed.
    """
    now = history[-1]
    if not math.isnan(now.held):
        return now.held - now.trained
    if len(history) < 2:
        return math.nan
    before = history[-2].quarters
    drift = max(0.0, (before[2] - before[3] + now.quarters[0] - now.quarters[1]) / 2)
    return before[3] - now.quarters[0] - drift


def is_memorizing(history: Sequence[EpochLosses], entropy: float) -> bool:
    """Whether :func:`memory` is large, and more than its standard error; never in the first epoch."""
    if len(history) < 2:
        return False
    error = history[-1].error
    if math.isnan(history[-1].held):  # a difference of differences
        return memory(history) > max(min(JUMP, SHARE * entropy), 2 * error)
    return memory(history) > max(min(GAP, SHARE * entropy), error)


def is_slow(history: Sequence[EpochLosses], entropy: float) -> bool:
    """Whether the rows held back gained little in the last epoch, against all they gained; never in the first."""
    if len(history) < 2 or math.isnan(history[-1].held):
        return False
    before, now = history[-2].held, history[-1].held
    return before - now < SLOW * max(entropy - now, 0.0)


def has_learned(losses: EpochLosses, largest: float, count: int) -> bool:
    """Whether given labels out of sample are predicted better than by the largest class; True where none are held back.

    Args:
        losses: Of an epoch.
        largest: Share of the labels that the largest class has.
        count: Number of rows held back.
    """
    if not count:
        return True
    return losses.right - largest > 2 * math.sqrt(largest * (1 - largest) / count)


@torch.no_grad()
def epoch_losses(
    label_loss: Float[Tensor, " n_samples"],
    margin: Float[Tensor, " n_samples"],
    place: Int[Tensor, " n_samples"],
    held: Bool[Tensor, " n_samples"],
) -> EpochLosses:
    """Mean label losses of an epoch; waits for the device.

    Args:
        label_loss: Of every row in this epoch, in nats; not finite where it was not seen.
        margin: Label logit minus the largest other.
        place: When the row came in this epoch, counted in rows.
        held: True for the rows held back.
    """
    seen = label_loss.isfinite()
    trained = seen & ~held
    values = label_loss.where(seen, torch.zeros_like(label_loss)).double()
    if not bool(trained.any()):
        return EpochLosses((math.nan, math.nan, math.nan, math.nan), math.nan, math.nan)
    order = place[trained].argsort()
    in_order = values[trained][order]
    means = torch.stack([part.mean() if len(part) else in_order.mean() for part in in_order.tensor_split(4)])
    spread = in_order.std(correction=0)
    of_held = values[held & seen]
    if len(of_held):
        error = (of_held.var(correction=0) / len(of_held) + spread.square() / len(in_order)).sqrt()
    else:
        error = spread * math.sqrt(8 / len(in_order)) if len(in_order) >= FEW_HELD else torch.tensor(math.inf)
    held_mean = of_held.mean() if len(of_held) else torch.tensor(math.nan)
    right = (margin[held & seen] > 0).double().mean()  # NaN of none
    first, second, third, fourth, *rest = [float(value) for value in (*means, held_mean, error, right)]
    return EpochLosses((first, second, third, fourth), *rest)


class LabelShares(NamedTuple):
    """What is known of given labels without a network.

    Attributes:
        entropy: Entropy of the shares of the classes, in nats: the mean loss of a network that knows these alone.
        largest: Share of the largest class.
    """

    entropy: float
    largest: float


def label_shares(labels: Int[Tensor, " n_samples"], num_classes: int) -> LabelShares:
    """Entropy and largest share of labels; waits for the device."""
    shares = torch.bincount(labels, minlength=num_classes).double() / max(1, len(labels))
    return LabelShares(float(torch.special.entr(shares).sum()), float(shares.max()))


def _fixed(warmup: int | str, epochs: int | None) -> int:
    if isinstance(warmup, str):
        raise ValueError(checks.problem("warmup", "must be a positive integer or 'auto'", repr(warmup)))
    number = checks.positive_int("warmup", warmup)
    if epochs is not None and number >= epochs:
        rule = f"must be shorter than the training of {epochs} epochs, or nothing is ever filtered"
        raise ValueError(checks.problem("warmup", rule, number, "Use `warmup='auto'`."))
    return number
