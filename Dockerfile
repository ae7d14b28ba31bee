# docker build -t mqi-beam-exporter . && docker run --rm -p 127.0.0.1:10813:10813 mqi-beam-exporter demo --web.listen-address 0.0.0.0:10813
# Without docker: make check-image runs every line of it in a clean root.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements-runtime.lock requirements-build.lock ./
RUN python -m venv /opt/mqi \
    && /opt/mqi/bin/pip install --no-cache-dir --require-hashes -r requirements-runtime.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY exporter exporter
COPY dashboards dashboards
COPY alerts alerts
COPY docs/runbooks docs/runbooks
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/mqi/bin/pip install --no-cache-dir --no-index --no-deps wheels/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="mqi-beam-exporter" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --no-create-home --uid 10813 mqi
COPY --from=build /opt/mqi /opt/mqi
ENV PATH=/opt/mqi/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER mqi
EXPOSE 10813
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["mqi-exporter", "healthcheck"]
ENTRYPOINT ["mqi-exporter"]
CMD ["--config.file", "/etc/mqi-exporter/exporter.yaml", "--web.listen-address", "0.0.0.0:10813"]
