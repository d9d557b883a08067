# The bridge in a container. Build it with: docker build -t cti-mqtt .
# How to run it stands in docs/deployment.md.

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY cti_mqtt ./cti_mqtt
RUN ["python", "-m", "venv", "/opt/cti-mqtt"]
RUN ["/opt/cti-mqtt/bin/python", "-m", "pip", "install", "--no-cache-dir", "."]

FROM python:3.13-slim
COPY --from=build /opt/cti-mqtt /opt/cti-mqtt
ENV PATH="/opt/cti-mqtt/bin:$PATH" PYTHONUNBUFFERED=1
# An empty configuration folder to mount over, and a data folder that the user may write to.
RUN ["sh", "-c", "useradd --system --uid 10001 --no-create-home cti-mqtt && install -d /etc/cti-mqtt && install -d -o cti-mqtt /var/lib/cti-mqtt"]
USER 10001
VOLUME ["/var/lib/cti-mqtt"]

# Reads the same configuration and environment as the bridge: is there a fresh verdict at the broker, and is it good?
HEALTHCHECK --interval=30s --timeout=15s --start-period=30s --retries=3 \
    CMD ["cti-mqtt", "health", "-c", "/etc/cti-mqtt/config.yaml"]

# User names and passwords come from the environment (docker run --env-file), the rest from the mounted file.
ENTRYPOINT ["cti-mqtt"]
CMD ["run", "-c", "/etc/cti-mqtt/config.yaml"]
