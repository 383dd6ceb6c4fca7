"""Adapters to training frameworks, a file each; each imports its framework, so import the one you need."""
