# The gateway (OpenAI's API, live captions, the web page) and the clients: no Triton, no models.
#
#   docker build -f deploy/docker/gateway.Dockerfile -t moulin:gateway .
#   docker run --rm -p 9000:9000 -e MOULIN_API_KEYS=secret moulin:gateway \
#       gateway --triton asr:8001 --host 0.0.0.0
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ARG EXTRAS=gateway,tracing
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/constraints-3.11.txt deploy/constraints-3.12.txt deploy/constraints-3.13.txt deploy/
RUN python -m venv /opt/moulin \
    && /opt/moulin/bin/pip install --no-cache-dir --constraint "deploy/constraints-${PYTHON_VERSION}.txt" ".[${EXTRAS}]"

FROM python:${PYTHON_VERSION}-slim-bookworm
COPY --from=build /opt/moulin /opt/moulin
COPY deploy/docker/healthcheck.py /usr/local/bin/healthcheck.py
RUN useradd --system --uid 10001 --create-home moulin
ENV PATH=/opt/moulin/bin:$PATH
USER 10001
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s \
    CMD ["python3", "/usr/local/bin/healthcheck.py", "http://127.0.0.1:9000/healthz"]
ENTRYPOINT ["moulin"]
CMD ["gateway", "--triton", "server:8001", "--host", "0.0.0.0"]
