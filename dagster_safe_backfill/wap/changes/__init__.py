"""How the live table is changed."""
