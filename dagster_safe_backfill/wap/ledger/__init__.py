"""Writing the ledger, and reading the history of live partitions and the staged partitions from it."""
