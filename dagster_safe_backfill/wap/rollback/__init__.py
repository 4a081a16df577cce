"""How publications are undone."""
