"""The transitions of a batch, a file each: write, audit, publish; and the ledger that records them."""
