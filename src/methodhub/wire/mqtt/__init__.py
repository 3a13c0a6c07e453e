"""MQTT 3.1.1 (OASIS Standard, 29 October 2014) as a server speaks it. Knows nothing of what topics mean."""
