"""One training of a network on labelled data, and what it says of every label: what ``lossbuf scan`` does."""

from lossbuf.scan.folder import ScanFolder, load_scan
from lossbuf.scan.run import NETWORKS, Scan, ScanSettings, scan

__all__ = ["NETWORKS", "Scan", "ScanFolder", "ScanSettings", "load_scan", "scan"]
