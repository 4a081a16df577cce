"""Audits and verdicts, as values."""
