"""The ledger: what is recorded in it, and what it says of live and of staged partitions."""
