"""Jobs: one method, or one update of a twin, for many devices, and what became of each."""
