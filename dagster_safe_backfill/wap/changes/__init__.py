"""Changes of the live table: prepared statements, swaps, archives, and checks for conflicts."""
