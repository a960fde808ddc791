# syntax=docker/dockerfile:1
# CPU:  docker build --target cpu  -t voxline:cpu  --build-arg CPU_TORCH_INDEX=... .
# CUDA: docker build --target cuda -t voxline:cuda .
# On x86-64 the usual wheels of torch bring gigabytes of CUDA: CPU_TORCH_INDEX names PyTorch's index of CPU wheels. Only
# the cpu target reads it, and each target has a torch of its own and checks whose it is.
# Base models are pulled on first use into /cache; bake them in with --build-arg BAKED_BASES="gpt-sovits-v2proplus".
# What the gate listens with (260 MB) is baked in where the build can fetch it; BAKED_ARTIFACTS="" leaves it out.

FROM python:3.11-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc g++ libc6-dev git \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The dependencies form a layer of their own: they change less often than the code. Their versions are pinned in pyproject.toml.
COPY pyproject.toml README.md LICENSE ./
RUN mkdir pipeline models && touch pipeline/__init__.py models/__init__.py

FROM build AS build-cpu
ARG CPU_TORCH_INDEX=""
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${CPU_TORCH_INDEX:+--extra-index-url "$CPU_TORCH_INDEX"} '.[all,langs]' \
    && pip uninstall --yes voxline && rm -rf pipeline models \
    && python -c "import sys, torch; sys.exit(torch.version.cuda and 'this torch brings CUDA: set CPU_TORCH_INDEX')"
COPY pipeline pipeline
COPY models models
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps .

FROM build AS build-cuda
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install '.[all,langs]' \
    && pip uninstall --yes voxline && rm -rf pipeline models \
    && python -c "import sys, torch; sys.exit(not torch.version.cuda and 'this torch has no CUDA')"
COPY pipeline pipeline
COPY models models
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps .

FROM python:3.11-slim-bookworm AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git git-lfs libsndfile1 ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 voxline \
    && install --directory --owner=voxline /cache /repository \
    && git config --system --add safe.directory '*'
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    VOXLINE_CACHE=/cache
WORKDIR /repository

FROM runtime AS cpu
COPY --from=build-cpu /venv /venv
# By number, so that a cluster can check that it is not root.
USER 10001
ARG BAKED_BASES=""
RUN for base in $BAKED_BASES; do voxline bases pull "$base" || exit 1; done
ARG BAKED_ARTIFACTS="gate"
RUN for name in $BAKED_ARTIFACTS; do voxline artifacts pull "$name" || echo "built without $name: not measured"; done
CMD ["voxline", "--help"]

# The wheels of torch bring the CUDA libraries; the driver comes from the host through the container runtime.
FROM runtime AS cuda
COPY --from=build-cuda /venv /venv
USER 10001
ARG BAKED_BASES=""
RUN for base in $BAKED_BASES; do voxline bases pull "$base" || exit 1; done
ARG BAKED_ARTIFACTS="gate"
RUN for name in $BAKED_ARTIFACTS; do voxline artifacts pull "$name" || echo "built without $name: not measured"; done
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VOXLINE_DEVICE=cuda
CMD ["voxline", "--help"]
