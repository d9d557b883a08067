"""`python -m cti_mqtt` is `cti-mqtt`."""

from cti_mqtt.cli import main

if __name__ == "__main__":
    main()
