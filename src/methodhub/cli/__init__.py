"""The command `methodhub`: verbs over the hub's own HTTP. Knows no store, no socket of a device and no SQL."""
