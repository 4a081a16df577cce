"""Files that older versions of the library wrote, and what made them."""
