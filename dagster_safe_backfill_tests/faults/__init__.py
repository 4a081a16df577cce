"""Real faults: processes that are killed, and readers beside a publication."""
