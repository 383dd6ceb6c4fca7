"""A condensed set or coreset as one safe file, with its provenance, and as pictures."""

from condensation.artifact.condensed_set import CondensedSet
from condensation.artifact.provenance import Cleaning, Normalisation, Provenance

__all__ = ["Cleaning", "CondensedSet", "Normalisation", "Provenance"]
