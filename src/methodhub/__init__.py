"""MethodHub: a self-hosted hub, wire-compatible with the direct methods of Azure IoT Hub."""

__version__ = "0.6.1"
