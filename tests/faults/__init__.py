"""What the bridge must survive: a kill at any moment, and payloads that mean harm. `make faults` runs it at length."""
