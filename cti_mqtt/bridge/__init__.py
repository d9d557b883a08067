"""The bridge: cyclers on one side, MQTT on the other."""
