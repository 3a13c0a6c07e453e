"""How much of everything the hub lets pass in a time, in the units of the original."""
