"""Device twins: what a back end and a device tell each other between calls."""
