"""Client certificates of devices: what makes one believable, and whose signature counts."""
