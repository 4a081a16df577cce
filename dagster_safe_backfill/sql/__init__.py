"""Values to sqlglot expressions. Pure: nothing here runs a statement or knows a connection."""
