"""NATS (https://docs.nats.io/reference/reference-protocols/nats-protocol) as the peer of a server speaks it: the part
that a bus needs, without JetStream. Knows nothing of what subjects mean."""
