# The service on NVIDIA's Triton container, which has Triton's own onnxruntime and tensorrt backends too.
#
#   docker build -f deploy/docker/gpu.Dockerfile -t moulin:gpu .
#   docker run --rm --gpus all --shm-size 1g -p 8000-8002:8000-8002 -v ./models:/models:ro moulin:gpu \
#       moulin serve /models/zipformer --device cuda --host 0.0.0.0 --no-gateway
#
# Without a command it serves the repository that is mounted at /model-repository (`moulin repo build`).
# The container's release must have Python 3.12: 24.11 and later have.
ARG TRITON_VERSION=24.12

FROM nvcr.io/nvidia/tritonserver:${TRITON_VERSION}-py3
ARG EXTRAS=engine-gpu,web,hub
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY deploy/constraints-3.12.txt deploy/
COPY deploy/docker/healthcheck.py /usr/local/bin/healthcheck.py
# A virtual environment that sees the container's packages: Ubuntu's Python takes none of pip's.
RUN python3 -m venv --system-site-packages --without-pip /opt/moulin \
    && python3 -m pip --python /opt/moulin/bin/python3 install --no-cache-dir \
        --constraint deploy/constraints-3.12.txt ".[${EXTRAS}]" \
    && rm -rf /src \
    && useradd --system --uid 10001 --create-home moulin \
    && install -d -o moulin /model-repository
# Triton's python backend takes the environment of the first python3 on PATH.
ENV PATH=/opt/moulin/bin:$PATH
WORKDIR /home/moulin
USER 10001
EXPOSE 8000 8001 8002 9000
HEALTHCHECK --interval=10s --timeout=6s --start-period=300s \
    CMD ["python3", "/usr/local/bin/healthcheck.py", "http://127.0.0.1:8000/v2/health/ready"]
CMD ["tritonserver", "--model-repository=/model-repository", "--disable-auto-complete-config"]
