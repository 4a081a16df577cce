"""Rolling back publications."""
