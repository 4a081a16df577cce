"""Slices, tables and states: values, by the standard library only."""
