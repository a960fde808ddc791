# syntax=docker/dockerfile:1
# CPU:  docker build --target cpu  -t voxline:cpu .
# CUDA: docker build --target cuda -t voxline:cuda .
# Base models are pulled on first use into /cache; bake them in with --build-arg BAKED_BASES="gpt-sovits-v2proplus".

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
# Wheels of torch bring CUDA unless TORCH_INDEX names an index of CPU wheels and makes the image gigabytes smaller.
COPY pyproject.toml README.md LICENSE ./
ARG TORCH_INDEX=""
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir pipeline models && touch pipeline/__init__.py models/__init__.py \
    && pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[all,langs]' \
    && pip uninstall --yes voxline && rm -rf pipeline models
COPY pipeline pipeline
COPY models models
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps .

FROM python:3.11-slim-bookworm AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git git-lfs libsndfile1 ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 voxline \
    && install --directory --owner=voxline /cache /repository \
    && git config --system --add safe.directory '*'
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    VOXLINE_CACHE=/cache
# By number, so that a cluster can check that it is not root.
USER 10001
WORKDIR /repository
ARG BAKED_BASES=""
RUN for base in $BAKED_BASES; do voxline bases pull "$base" || exit 1; done
CMD ["voxline", "--help"]

# The wheels of torch bring the CUDA libraries; the driver comes from the host through the container runtime.
FROM cpu AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    VOXLINE_DEVICE=cuda
