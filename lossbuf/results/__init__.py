"""Results of a command in a folder: made beside the old ones, and put in their place only when all of them are there.

A file that lossbuf did not write, or that was changed since, is never replaced or removed. Which files lossbuf wrote is
kept in :data:`MARKER`, a hidden file in the same folder.
"""

from lossbuf.results.draft import Draft, Kind
from lossbuf.results.folder import ResultFolder
from lossbuf.results.marker import MARKER
from lossbuf.results.places import check_apart

__all__ = ["MARKER", "Draft", "Kind", "ResultFolder", "check_apart"]
