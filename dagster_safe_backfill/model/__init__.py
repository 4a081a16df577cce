"""Slices, tables, states and options, as values that need only the standard library."""
