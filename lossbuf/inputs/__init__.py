"""Labelled data from where people keep it: image folders, tables, NumPy archives.

    data = read_labelled("photos/")  # or "table.csv", "table.parquet", "arrays.npz"

What cannot be read is listed in ``data.skipped`` with a reason; a source that makes no sense as a whole is an
:class:`InputError`.
"""

from lossbuf.errors import InputError
from lossbuf.inputs.labelled import LabelledData, ReadSettings
from lossbuf.inputs.source import read_labelled

__all__ = ["InputError", "LabelledData", "ReadSettings", "read_labelled"]
