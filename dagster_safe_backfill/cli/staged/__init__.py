"""What waits to be published of an asset of the staged shape, and what its audit says."""
