"""Plans: what a backfill is to do, written down before anything is touched, and refused once it is no longer true."""
