"""Tables of plain assets and ops: store and read."""
