"""What the cases measure with."""
