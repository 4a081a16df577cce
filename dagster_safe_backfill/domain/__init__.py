"""Frozen values of the field: slices, tables, audits, states. Standard library only."""
