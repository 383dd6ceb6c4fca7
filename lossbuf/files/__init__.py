"""Files written whole or not at all, locks of folders, and CSV that a spreadsheet does not run."""

from lossbuf.files.whole import (
    check_stored,
    check_unfolding,
    load_tensors,
    make_folder,
    mapped_array,
    opened_arrays,
    remove_abandoned,
    restoring,
    save_tensors,
    size_of,
    write_whole,
)

__all__ = [
    "check_stored",
    "check_unfolding",
    "load_tensors",
    "make_folder",
    "mapped_array",
    "opened_arrays",
    "remove_abandoned",
    "restoring",
    "save_tensors",
    "size_of",
    "write_whole",
]
