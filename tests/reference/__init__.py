"""Naive float64 references, written from the papers and not from the code they check."""
