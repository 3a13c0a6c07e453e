"""The dialect: text, topics and JSON of Azure IoT Hub to and from core values. Pure, and ignorant of the wire."""
