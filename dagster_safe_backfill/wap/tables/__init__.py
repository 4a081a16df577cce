"""Tables: how a slice is recognised in one; the tables of plain assets and ops, stored and read."""
