"""The ledger, and what it says."""
