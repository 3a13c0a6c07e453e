"""The port `JobStore` on a database: jobs, their devices, and the nodes that call them."""
