"""What tests of several folders use: real brokers, an independent MQTT client, a bridge on a simulated cycler."""
