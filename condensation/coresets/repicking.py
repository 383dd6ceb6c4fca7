"""Training on a coreset that is chosen anew while the network learns: CRUST and CRAIG as their papers train."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from condensation.coresets.base import Chosen
from condensation.coresets.features import logit_gradients
from lossbuf import checks
from lossbuf.callback import LossBufferCallback
from lossbuf.errors import LossBufferWarning
from lossbuf.recording.saved_state import fingerprint

_VERSION = 1


@runtime_checkable
class Pick(Protocol):
    """Chooses rows by their gradients, as :func:`condensation.coresets.crust.pick` and that of ``craig`` do."""

    def __call__(self, gradients: Tensor, groups: Tensor, counts: list[int], /) -> Chosen:
        """Rows and weights; gradients a row a sample, groups their classes, counts the rows to choose of each."""
        ...


class Repicking:
    """A callback for one :func:`~lossbuf.training.train`, which then trains on a coreset chosen anew after every epoch.

        network = build(lambda: ConvNet(1, 10, (28, 28)), settings)
        repicking = Repicking(labels, pick=crust.pick, last_layer=network.classifier)
        train(network, x, labels, settings, callback=repicking, mix=repicking.mix)

    Up to epoch ``start`` all rows count the same. From then on those chosen count by their weights, scaled to mean 1,
    and the others not at all. All rows still pass through the network: their outputs, taken down in the step, are what
    the next choice looks at, so no pass is made for it. A training with a checkpoint may be killed: resumed with a
    ``Repicking`` made in the same way, it ends with the same bits.

    Args:
        labels: Given labels of all rows, shape ``(n_samples,)``.
        pick: Chooses; with settings of its own by ``functools.partial``, as ``partial(crust.pick, mode="centrality")``.
        num_classes: Number of classes; by default the largest label plus 1.
        share: Rows to keep of each class, in (0, 1], rounded half up, one at least.
        start: Epochs on all rows, at least 1.
        every: Epochs from one choice to the next, at least 1.
        last_layer: The network's last linear layer. With it rows are chosen by the gradient in what it is given (its
            weight times softmax minus one-hot label), as CRUST does; without by that in the logits, as CRAIG does.
        cleaning: Takes down every step as well, and its weights count beside the coreset's: one training that cleans
            and chooses.

    Attributes:
        chosen: The coreset now; ``None`` before the first choice.
        sample_weights: Of each row in the loss, shape ``(n_samples,)``.

    Raises:
        ValueError: If labels or settings are not usable.

    Source:
        Mirzasoleiman, Cao, Leskovec 2020 (CRUST: half of each class from epoch 5, every epoch, weights of cluster
        sizes, mixup within the class); Mirzasoleiman, Bilmes, Leskovec 2020 (CRAIG).

    Differs from the papers:
        Gradients are those of the last epoch's steps and not of a pass after it, and batch norm sees all rows. Rows
        that did not come in an epoch, or were not finite, keep the gradient of the last one they came in. With
        :meth:`mix` they are those of the mixed samples.
    """

    def __init__(
        self,
        labels: Integer[Tensor, " n_samples"],
        *,
        pick: Pick,
        num_classes: int | None = None,
        share: float = 0.5,
        start: int = 5,
        every: int = 1,
        last_layer: nn.Linear | None = None,
        cleaning: LossBufferCallback | None = None,
    ) -> None:
        if num_classes is not None:
            checks.positive_int("num_classes", num_classes)
        self.labels = checks.class_labels("labels", labels, num_classes)
        sizes = torch.bincount(self.labels, minlength=num_classes or 0).tolist()
        if checks.rate("share", share) == 0:
            raise ValueError(checks.problem("share", "must lie in (0, 1]", share))
        if not callable(pick):
            raise ValueError(checks.problem("pick", "must be a function that chooses rows", repr(pick)))
        if cleaning is not None and (cleaning.n_samples, cleaning.num_classes) != (len(self.labels), len(sizes)):
            rule = f"must be of {len(self.labels)} rows and {len(sizes)} classes, as labels are"
            got = f"{cleaning.n_samples} and {cleaning.num_classes}"
            raise ValueError(checks.problem("cleaning", rule, got))
        self.counts = [max(1, math.floor(share * size + 0.5)) for size in sizes]
        self.pick, self.last_layer, self.cleaning = pick, last_layer, cleaning
        self.start, self.every = checks.positive_int("start", start), checks.positive_int("every", every)
        self.epoch = 0
        self.chosen: Chosen | None = None
        self.sample_weights = torch.ones(len(self.labels))
        self.gradients = torch.zeros(len(self.labels), len(sizes))
        self.seen = torch.zeros(len(self.labels), dtype=torch.bool)
        self.not_finite = torch.zeros((), dtype=torch.int64)

    def loss(
        self,
        logits: Float[Tensor, "batch num_classes"],
        labels: Integer[Tensor, " batch"],
        indices: Integer[Tensor, " batch"],
    ) -> Float[Tensor, ""]:
        """Take down a batch and give its weighted mean loss; does not wait for the GPU.

        The mean is over the rows that count, so that a step is as long as one on a batch of them alone.
        """
        checks.batch_logits("logits", logits, len(self.counts))
        device = logits.device
        if self.gradients.device != device:
            self.gradients, self.seen, self.sample_weights, self.labels, self.not_finite = (
                part.to(device)
                for part in (self.gradients, self.seen, self.sample_weights, self.labels, self.not_finite)
            )
        checks.batch_vector("labels", labels, logits)
        checks.batch_vector("indices", indices, logits)
        rows, given = indices.long(), labels.long()
        if device.type == "cpu":
            checks.in_range("indices", rows, len(self.labels))
            checks.in_range("labels", given, len(self.counts))
        weights = self.sample_weights[rows]
        if self.cleaning is not None:
            weights = weights * self.cleaning.update(logits, labels, indices)
        gradients = logit_gradients(logits.detach().float(), given)
        usable = gradients.isfinite().all(1, keepdim=True)
        # A row that is not finite keeps the gradient that it had, and is not among those to choose from without one.
        self.gradients.index_copy_(0, rows, torch.where(usable, gradients, self.gradients[rows]))
        self.seen.index_copy_(0, rows, self.seen[rows] | usable.squeeze(1))
        self.not_finite += (~usable).sum()
        losses = F.cross_entropy(logits, given, reduction="none")
        # A row that does not count stays out even where its loss is infinite.
        weighted = torch.where(weights > 0, losses * weights, 0.0).sum()
        return weighted / (weights > 0).sum().clamp(min=1)

    def end_epoch(self) -> None:
        """Choose, where it is time to.

        Warns:
            LossBufferWarning: If rows of this epoch were not finite; they keep the gradient that they had before.
        """
        self.epoch += 1
        if self.cleaning is not None:
            self.cleaning.end_epoch()
        left_out = int(self.not_finite)
        self.not_finite.zero_()
        if left_out:
            text = f"Epoch {self.epoch}: the gradients of {left_out} samples are NaN or infinite and were left out."
            warnings.warn(text, LossBufferWarning, stacklevel=2)
        if self.epoch >= self.start and (self.epoch - self.start) % self.every == 0:
            self._choose()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, as tensors and plain values, the state of ``cleaning`` in it.

        Not in it are ``pick``, which has to be the same, and a generator that it draws from.
        """
        return {
            "of": self._identity(),
            "epoch": self.epoch,
            "chosen": None if self.chosen is None else {"indices": self.chosen.indices, "weights": self.chosen.weights},
            "sample_weights": self.sample_weights,
            "gradients": self.gradients,
            "seen": self.seen,
            "not_finite": self.not_finite,
            "cleaning": None if self.cleaning is None else dict(self.cleaning.state_dict()),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave, whole or not at all.

        Raises:
            ValueError: If it is of other settings or another data set. What was collected so far then stays.
        """
        mine = self.state_dict()
        if not isinstance(state_dict, Mapping) or state_dict.keys() != mine.keys():
            raise ValueError(checks.problem("state_dict", "must be one of a Repicking", "another"))
        of = state_dict["of"]
        for name, value in mine["of"].items():
            if not isinstance(of, Mapping) or of.get(name) != value:
                found = of.get(name) if isinstance(of, Mapping) else of
                raise ValueError(checks.problem("state_dict", f"must have {name} {value}", found))
        tensors = ("sample_weights", "gradients", "seen", "not_finite")
        for name in tensors:
            given, now = state_dict[name], mine[name]
            if not isinstance(given, Tensor) or (given.shape, given.dtype) != (now.shape, now.dtype):
                raise ValueError(
                    checks.problem("state_dict", f"must hold {name} as it was saved", type(given).__name__)
                )
        if not all(bool(state_dict[name].isfinite().all()) for name in ("sample_weights", "gradients")):
            raise ValueError(checks.problem("state_dict", "must hold finite weights and gradients", "others"))
        chosen = self._restored(state_dict["chosen"])
        epoch = checks.non_negative_int("epoch", state_dict["epoch"])
        if self.cleaning is not None:
            self.cleaning.load_state_dict(state_dict["cleaning"])
        self.epoch, self.chosen = epoch, chosen
        self.sample_weights, self.gradients, self.seen, self.not_finite = (
            state_dict[name].detach().to(mine[name].device, copy=True) for name in tensors
        )

    def _restored(self, chosen: Any) -> Chosen | None:
        if chosen is None:
            return None
        indices, weights = (
            chosen.get(name) if isinstance(chosen, Mapping) else None for name in ("indices", "weights")
        )
        if (
            not (isinstance(indices, Tensor) and isinstance(weights, Tensor))
            or (indices.dtype, weights.dtype) != (torch.int64, torch.float64)
            or not indices.shape == weights.shape == (len(indices.flatten()),)
        ):
            raise ValueError(checks.problem("state_dict", "must hold chosen as it was saved", type(chosen).__name__))
        checks.in_range("state_dict", indices, len(self.labels))
        return Chosen(indices.cpu().clone(), weights.cpu().clone())

    def _identity(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "data": fingerprint(self.labels, None),
            "counts": self.counts,
            "start": self.start,
            "every": self.every,
            "last_layer": self.last_layer is not None,
            "cleaning": self.cleaning is not None,
        }

    @torch.no_grad()
    def _choose(self) -> None:
        among = self.seen
        if self.cleaning is not None:
            among = among & (self.cleaning.sample_weights.to(among.device) > 0)
        rows = torch.nonzero(among).flatten()
        if not len(rows):
            return
        gradients = self.gradients[rows]
        if self.last_layer is not None:
            gradients = gradients @ self.last_layer.weight.detach().to(gradients)
        found = self.pick(gradients, self.labels[rows], self.counts)
        if not isinstance(found, Chosen):
            raise ValueError(checks.problem("pick", "must give a Chosen, rows and weights", repr(found)))
        indices = rows[found.indices.to(rows.device)]
        weights = torch.ones(len(indices)) if found.weights is None else found.weights
        weights = weights.to(rows.device, torch.float32)
        if not bool((weights >= 0).all() & (weights.sum() > 0)) or len(indices.unique()) < len(indices):
            rule = "must give different rows, and weights of at least 0 that are not all 0"
            raise ValueError(checks.problem("pick", rule, f"{len(indices)} rows, weights {weights.tolist()[:5]}"))
        self.chosen = Chosen(indices.cpu(), weights.cpu().double())
        self.sample_weights = torch.zeros_like(self.sample_weights).index_copy(0, indices, weights / weights.mean())

    def mix(
        self,
        x: Float[Tensor, "batch ..."],
        labels: Int[Tensor, " batch"],
        rows: Int[Tensor, " batch"],
        *,
        alpha: float = 1.0,
        beta: float = 0.1,
    ) -> Float[Tensor, "batch ..."]:
        """Mixup within the given class: each row and a partner of the same label, both of the coreset.

        A row becomes share * row + (1 - share) * partner with a share from Beta(alpha, beta), by default .91 in the
        mean; it keeps its label. Rows that do not count, and all of them before the first choice, stay as they are.
        Draws come from torch's global generators, which :func:`~lossbuf.training.train` seeds.

        Args:
            x: Samples of a batch.
            labels: Their given labels.
            rows: Their rows.
            alpha: Of the Beta distribution, above 0.
            beta: Of the Beta distribution, above 0.
        """
        if self.chosen is None:
            return x
        counts = self.sample_weights.to(x.device)[rows] > 0
        # Rows sorted by class, those that do not count at the end, in random order within a class.
        drawn = torch.rand(len(x), device=x.device).double()  # in float32 a sum with a label might round up
        key = torch.where(counts, labels.long(), len(self.counts)) + drawn
        order = key.argsort()
        group = key[order].floor()
        nearby = order.roll(-1)
        # The last of each class takes its first, so that all partners are of the class.
        first = torch.searchsorted(group, group)
        is_last = torch.cat([group[1:] != group[:-1], group.new_ones(1, dtype=torch.bool)])
        nearby = torch.where(is_last, order[first], nearby)
        partner = torch.empty_like(order).index_copy_(0, order, nearby)
        ends = torch.tensor([alpha, beta], device=x.device, dtype=torch.float32)
        share = torch.distributions.Beta(ends[0], ends[1]).sample((len(x),)).to(x.dtype)
        share = torch.where(counts, share, 1.0).view(-1, *[1] * (x.ndim - 1))
        return share * x + (1 - share) * x[partner]
