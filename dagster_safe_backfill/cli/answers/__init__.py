"""What verbs answer: the envelope, its data by verb, and how they are printed."""
