"""What a user declares: assets, their options, I/O managers, jobs, checks and policies."""
