"""The messages, one file a family: session, channels, tests, variables, service.

A message is a value: what it causes lives in the client, the simulator or the bridge. Each class ends in `Request` or
`Feedback`; which request is answered by which feedback stands in `cti_mqtt.cti.commands`.
"""
