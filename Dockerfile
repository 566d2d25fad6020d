# Two images of one file:
#     docker build -t authface:cpu .                      CPU: the core, ONNX Runtime, the built-in model; restores, curates, tags by measuring
#     docker build -t authface:cuda --target cuda .    NVIDIA GPUs: all of it, with PyTorch and its CUDA; the host needs only the driver
# Photos of this folder, as their owner:
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/photos" authface:cpu restore photo.jpg
#     docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/photos" -v authface:/cache --gpus all authface:cuda train controlnet set
FROM python:3.13-slim-trixie AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build==1.6.1 && python -m build --wheel --outdir /wheels

FROM python:3.13-slim-trixie AS base
# What is downloaded lies in a volume; whoever runs the image, under any number, may write there.
ENV HOME=/cache \
    HF_HOME=/cache/huggingface \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN mkdir -p /cache /photos && chmod 1777 /cache
VOLUME /cache
WORKDIR /photos

FROM base AS cuda
# What facexlib's OpenCV needs, in the versions of the image's Debian.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# PyPI's torch for Linux brings CUDA; onnxruntime-gpu takes the place of onnxruntime.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt "$(echo /wheels/*.whl)[all]" \
    && pip uninstall -y onnxruntime \
    && pip install --no-cache-dir "onnxruntime-gpu>=1.20"
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 1000
ENTRYPOINT ["authface"]
CMD ["--help"]

FROM base AS cpu
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    pip install --no-cache-dir -c /constraints.txt /wheels/*.whl
USER 1000
ENTRYPOINT ["authface"]
CMD ["--help"]
