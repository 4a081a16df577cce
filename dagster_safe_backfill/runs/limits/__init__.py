"""What stops a run, or keeps it from starting."""
