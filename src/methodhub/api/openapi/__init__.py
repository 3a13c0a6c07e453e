"""The OpenAPI document of the hub: every route of back ends, told to programs. It knows no request."""
