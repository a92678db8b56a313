# What stands beside lhm-live, as Debian ships it (users are those of its packages): docker build -f deploy/services.Dockerfile --target turn deploy
FROM debian:bookworm-slim AS turn
RUN apt-get update \
    && apt-get install -y --no-install-recommends coturn=4.6.* \
    && rm -rf /var/lib/apt/lists/*
COPY turnserver.conf /etc/turnserver.conf
# hadolint ignore=DL3066
USER turnserver
# the secret comes on the command line of compose.yaml, from .env
ENTRYPOINT ["turnserver", "-c", "/etc/turnserver.conf"]

FROM debian:bookworm-slim AS broker
RUN apt-get update \
    && apt-get install -y --no-install-recommends mosquitto=2.0.* \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o mosquitto -g mosquitto /data
COPY mosquitto.conf /etc/mosquitto/lhm-live.conf
# hadolint ignore=DL3066
USER mosquitto
VOLUME /data
# the server's own account has the password of .env; mosquitto.conf says how rigs get theirs
ENTRYPOINT ["sh", "-c", "umask 077 && touch /data/passwords && mosquitto_passwd -b /data/passwords lhm-live \"$MQTT_PASSWORD\" && exec mosquitto -c /etc/mosquitto/lhm-live.conf"]

FROM debian:bookworm-slim AS janus
RUN apt-get update \
    && apt-get install -y --no-install-recommends janus=1.1.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10002 janus
COPY janus /etc/janus-lhm-live
USER 10002
ENTRYPOINT ["janus", "--configs-folder", "/etc/janus-lhm-live"]
