"""Data of unknown length: per-sample statistics to files while training, and their sum out of core afterwards."""

from lossbuf.streams.callback import LossBufferStream
from lossbuf.streams.summary import StreamSummary, summarise

__all__ = ["LossBufferStream", "StreamSummary", "summarise"]
