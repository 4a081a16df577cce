"""How the live table is changed: what is prepared, swapped, archived and checked."""
