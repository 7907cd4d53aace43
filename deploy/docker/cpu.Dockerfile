# The whole service on CPUs: tritonserver from pip, ONNX Runtime, the gateway's packages and the demo models.
#
#   docker build -f deploy/docker/cpu.Dockerfile -t moulin:cpu .
#   docker run --rm --shm-size 1g -p 8000-8002:8000-8002 -v ./models:/models:ro moulin:cpu \
#       serve /models/zipformer --host 0.0.0.0 --no-gateway
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ARG EXTRAS=serve,triton,hub
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/constraints-3.11.txt deploy/constraints-3.12.txt deploy/constraints-3.13.txt deploy/
RUN python -m venv /opt/moulin \
    && /opt/moulin/bin/pip install --no-cache-dir --constraint "deploy/constraints-${PYTHON_VERSION}.txt" ".[${EXTRAS}]"

FROM python:${PYTHON_VERSION}-slim-bookworm
# The compiler for moulin's operators for ONNX Runtime: encoders take a fifth less time with them (docs/cpu-engine.md).
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/moulin /opt/moulin
COPY deploy/docker/healthcheck.py /usr/local/bin/healthcheck.py
RUN useradd --system --uid 10001 --create-home moulin
# Triton's python backend takes the environment of the first python3 on PATH.
ENV PATH=/opt/moulin/bin:$PATH
USER 10001
EXPOSE 8000 8001 8002 9000
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s \
    CMD ["python3", "/usr/local/bin/healthcheck.py", "http://127.0.0.1:8000/v2/health/ready"]
ENTRYPOINT ["moulin"]
CMD ["serve", "--host", "0.0.0.0", "--no-gateway"]
