"""Measuring audits on staged and on live rows."""
