"""Knowledge distillation: the probabilities that a teacher gives take the place of a small set's labels (KD)."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter
from torch import Tensor, nn

from condensation.coresets.base import Coreset
from condensation.coresets.cleaning import CleaningTraining
from condensation.coresets.features import FreshNetwork
from condensation.learned.condenser import Condenser, Learned
from condensation.learned.real_images import RealImages
from condensation.learned.run import Job
from lossbuf import checks
from lossbuf.data import standardised
from lossbuf.training import predict


def soft_labels(
    teacher: nn.Module, x: Float[Tensor, "n_samples ..."], temperature: float = 1.0
) -> Float[Tensor, "n_samples num_classes"]:
    """Probabilities that a network gives at a temperature: softmax of logits divided by it.

    Args:
        teacher: Trained; gives logits, in evaluation mode, and is left in the mode it was in.
        x: Samples, as it is used to them.
        temperature: Above 0; the higher, the more alike the probabilities.

    Returns:
        Float32, on the CPU; rows sum to 1.

    Raises:
        ValueError: If the temperature is not above 0, or the logits are no finite matrix.

    Example:
        >>> soft_labels(nn.Identity(), torch.tensor([[0.0, 2.0]]), temperature=2.0)
        tensor([[0.2689, 0.7311]])
    """
    checks.positive_float("temperature", temperature)
    modes = {module: module.training for module in teacher.modules()}
    try:
        logits = predict(teacher, x)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if logits.ndim != 2 or not bool(logits.isfinite().all()):
        rule = "must give finite logits, a row a sample"
        found = f"shape {tuple(logits.shape)}" if logits.ndim != 2 else "NaN or infinite ones"
        raise ValueError(checks.problem("teacher", rule, found, "Did its training diverge?"))
    return (logits.double() / temperature).softmax(1).float()


def distillation_loss(
    logits: Float[Tensor, "batch num_classes"],
    teacher_logits: Float[Tensor, "batch num_classes"],
    labels: Int[Tensor, " batch"] | None = None,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
) -> Float[Tensor, ""]:
    """Loss of a student: of what the teacher says at a temperature, and of the labels at none.

    The mean over the batch of alpha T^2 KL(teacher at T || student at T) + (1 - alpha) cross-entropy. The factor T^2
    keeps the gradient of the first as long as that of the second for all temperatures. Constant in the student, the
    teacher's entropy has no part in the gradient: :func:`~condensation.evaluate.evaluate` trains with the same one for
    soft labels of its ``temperature``, with ``alpha=1``.

    Args:
        logits: Of the student; the loss can be differentiated in them.
        teacher_logits: Of the teacher; no gradient flows into them.
        labels: Classes, not needed where ``alpha`` is 1.
        temperature: Above 0.
        alpha: Share of the teacher, in [0, 1].

    Raises:
        ValueError: If a number is out of its range, or ``alpha`` is below 1 and there are no labels.

    Source:
        Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network".

    Example:
        >>> distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([1]), alpha=0.5)
        tensor(0.3466)
    """
    checks.positive_float("temperature", temperature)
    checks.rate("alpha", alpha)
    if labels is None and alpha < 1:
        raise ValueError(checks.problem("labels", "must be given where `alpha` is below 1", None))
    student = (logits / temperature).log_softmax(1)
    teacher = (teacher_logits.detach() / temperature).log_softmax(1)
    taught = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    loss = alpha * temperature**2 * taught
    return loss if labels is None else loss + (1 - alpha) * F.cross_entropy(logits, labels)


_AnyDistillation = TypeVar("_AnyDistillation", bound="KnowledgeDistillation")


class KnowledgeDistillation(Condenser):
    """Gives a coreset or condensed set the labels of a teacher that was trained on all images: probabilities.

    A student trained on the small set learns from each image how much it looks like which other class. It must divide
    its logits by the temperature that the labels were given at, as :func:`distillation_loss` does, and
    :func:`~condensation.evaluate.evaluate` with ``settings=EvalSettings(temperature=4.0)``. The set of
    :meth:`condensed_set` tells it as ``schedule["temperature"]``.

    The checkpoint and the callback of :meth:`fit` are those of a base that learns. The teacher is trained anew after an
    interruption, to the same bits.

    Args:
        base: Chooses or learns the images: an estimator of :mod:`condensation.coresets`, which looks at no weights but
            0, or another :class:`~condensation.learned.condenser.Condenser`. A clone is fitted, with a seed from
            ``random_state`` where its own is ``None``.
        teacher: A trained network, as that of the cleaning run, with an output for each of the sorted classes; or one
            to be trained on the images. By default a :class:`~condensation.coresets.features.FreshNetwork`.
        temperature: Of the labels, above 0.
        standardise: Show a trained teacher images with mean 0 and deviation 1 by channel, as
            :class:`~lossbuf.selectors.LossBufferSelector` does; False shows them as they are. One to be trained always
            sees standardised images.
        random_state: Seed, generator or ``None``; the same seed gives the same images and labels.

    Attributes:
        images_: See :class:`~condensation.learned.condenser.Condenser`, like ``classes_``, ``sample_indices_`` and
            ``sample_weight_``. As many a class as the base gives.
        labels_: Probability of every class at the temperature, float32, shape ``(n_images, num_classes)``.
        losses_: Those of the base; empty where it has none.
        base_: The fitted base; it knows the classes by their numbers.
        teacher_: The trained network; no part of any file.

    Source:
        Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network".

    Differs from the paper:
        The teacher's word alone counts (``alpha=1`` in :func:`distillation_loss`), and it is heard once, of the images
        as they are: where a student trains with augmentation, labels stay those of the unchanged image. Images of
        :class:`~condensation.distillation.DatasetDistillation` are trained on like all others, not step by step.

    Example:
        >>> from condensation.coresets import Random
        >>> from lossbuf.training import TrainSettings
        >>> X = np.random.default_rng(0).normal(size=(20, 1, 8, 8)) + np.arange(20).reshape(20, 1, 1, 1) % 2
        >>> teacher = FreshNetwork(settings=TrainSettings(epochs=2, device="cpu"))
        >>> distilled = KnowledgeDistillation(Random(ipc=2), teacher=teacher, random_state=0).fit(X, np.arange(20) % 2)
        >>> distilled.hard_labels_, distilled.labels_.shape
        (array([0, 0, 1, 1]), (4, 2))
    """

    ipc = 1  # the base says how many
    device = "cpu"  # as do the base and the teacher of the device

    def __init__(
        self,
        base: Coreset | Condenser,
        *,
        teacher: nn.Module | FreshNetwork | None = None,
        temperature: float = 4.0,
        standardise: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.base = base
        self.teacher = teacher
        self.temperature = temperature
        self.standardise = standardise
        self.random_state = random_state

    @property
    def hard_labels_(self) -> NDArray[Any]:
        """The classes that the base chose or learned the images for, of ``classes_``, shape ``(n_images,)``."""
        return self.classes_[self._hard]

    @property
    def augment(self) -> Any:
        """What the base says to train with."""
        return getattr(self.base, "augment", None)

    def informed_by(self: _AnyDistillation, cleaning: CleaningTraining) -> _AnyDistillation:
        """Without ``teacher``, be taught by the network of the cleaning."""
        if self.teacher is None:
            self.set_params(teacher=cleaning.network)
        return self

    def _condense(self, real: RealImages, job: Job) -> Learned:
        checks.positive_float("temperature", self.temperature)
        if isinstance(self.base, KnowledgeDistillation) or not isinstance(self.base, Coreset | Condenser):
            rule = "must be a coreset estimator or another Condenser"
            raise ValueError(checks.problem("base", rule, type(self.base).__name__))
        labels, seeds = real.labels.cpu().numpy(), np.random.RandomState(job.seed).randint(2**31, size=2)
        teacher = self._trained(real, labels, int(seeds[0]))
        base: Any = clone(self.base)
        if base.get_params(deep=False).get("random_state", 0) is None:
            base.set_params(random_state=int(seeds[1]))
        options = {"sample_weight": real.weights.cpu().numpy(), "checkpoint": job.checkpoint, "callback": job.callback}
        taken = {name: value for name, value in options.items() if has_fit_parameter(base, name)}
        images, _ = base.fit_resample(real.given, labels, **taken)
        self.base_, self.teacher_, self._hard = base, teacher, base.sample_classes
        self.losses_ = getattr(base, "losses_", np.zeros(0))
        rows, counts = (getattr(base, name, None) for name in ("sample_indices_", "sample_weight_"))
        return Learned(
            standardised(real.given, images)[1][None],
            soft_labels(teacher, self._shown(real, images), self.temperature),
            None if rows is None else torch.from_numpy(rows),
            None if counts is None else torch.from_numpy(counts),
        )

    def _trained(self, real: RealImages, labels: NDArray[np.int64], seed: int) -> nn.Module:
        """The teacher, trained, with an output a class."""
        teacher = FreshNetwork() if self.teacher is None else self.teacher
        if isinstance(teacher, FreshNetwork):
            teacher = teacher.trained(real.given, labels, seed, _Weighted(real.weights))
        if not isinstance(teacher, nn.Module):
            raise ValueError(checks.problem("teacher", "must be a network or a FreshNetwork", type(teacher).__name__))
        outputs = soft_labels(teacher, self._shown(real, real.given[:1])).shape[1]
        if outputs != real.num_classes:
            rule = f"must have an output for each of the {real.num_classes} classes, and no others"
            raise ValueError(checks.problem("teacher", rule, outputs))
        return teacher

    def _shown(self, real: RealImages, images: NDArray[Any]) -> Tensor:
        """Images as the teacher is to see them."""
        if self.standardise or not isinstance(self.teacher, nn.Module):
            return standardised(real.given, images)[1]
        return torch.from_numpy(np.require(images, np.float32, ["C", "W"]))

    def _to_train_with(self) -> dict[str, Any]:
        told = super()._to_train_with()
        return told | {"schedule": told["schedule"] | {"temperature": float(self.temperature)}}


class _Weighted:
    """Weights the rows of a training."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights / weights.mean()

    def loss(self, logits: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return (F.cross_entropy(logits, labels, reduction="none") * self.weights.to(logits.device)[indices]).mean()

    def end_epoch(self) -> None:
        """Nothing ends."""
