"""What a run finds staged or published by an earlier one, and whether it is what this run would make."""
