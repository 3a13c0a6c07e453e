"""Sockets, TLS, caps and clocks before authentication. The product is a byte stream with facts about its peer."""
