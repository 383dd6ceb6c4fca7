"""Adapters that run other libraries on the same data."""
