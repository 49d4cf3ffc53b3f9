# overnight in a container: not root, data in a volume, a key required because it listens on all addresses.
#   docker build -t overnight .
#   docker run -e OVERNIGHT_API_KEY=secret -p 127.0.0.1:8642:8642 -v overnight:/var/lib/overnight overnight
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip install --no-cache-dir /build && rm -rf /build

RUN useradd --system --uid 8642 --home-dir /var/lib/overnight --shell /usr/sbin/nologin overnight \
    && install --directory --owner overnight --group overnight --mode 0700 /var/lib/overnight
USER overnight
WORKDIR /var/lib/overnight
VOLUME /var/lib/overnight

# Listening on 0.0.0.0 without OVERNIGHT_API_KEY or [[keys]] refuses to start.
ENV OVERNIGHT_LISTEN=0.0.0.0:8642 \
    OVERNIGHT_DATA=/var/lib/overnight/data \
    PYTHONUNBUFFERED=1
EXPOSE 8642

# 503 (cannot accept batches) and no answer at all are unhealthy; degraded is healthy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8642/health', timeout=4)"]

# SIGTERM drains; the drain takes up to 30 s, so give `docker stop` more: --stop-timeout 45.
STOPSIGNAL SIGTERM
ENTRYPOINT ["overnight"]
CMD ["serve"]
