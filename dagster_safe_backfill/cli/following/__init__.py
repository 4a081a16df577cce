"""How far a backfill is: reading it partition by partition, showing it, and following it until it ends."""
