"""What we claim, as comparisons that anyone can run: ``selective-sigma bench``."""
