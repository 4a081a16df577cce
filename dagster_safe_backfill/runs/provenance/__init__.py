"""Provenance: what made the rows that a run stages."""
