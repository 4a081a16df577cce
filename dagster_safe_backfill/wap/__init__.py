"""The transitions of a batch, one file each: write, audit and publish. The ledger records them."""
