"""scikit-learn style selectors: arrays in, clean rows out."""

from lossbuf.selectors.base import RowSelector
from lossbuf.selectors.loss_buffer import LossBufferSelector

__all__ = ["LossBufferSelector", "RowSelector"]
