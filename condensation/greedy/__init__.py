"""Greedy selection of rows: facility location, k-center, herding and centrality, exact and in bounded memory."""

from condensation.greedy.selection import Picked, Strategy, centrality, facility_location, herding, k_center

__all__ = ["Picked", "Strategy", "centrality", "facility_location", "herding", "k_center"]
