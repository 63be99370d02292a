# The command line in a container: docker build -t hf-unlearn --build-arg TORCH=cpu .
# TORCH is cpu, or the name of a CUDA build of torch such as cu126: the image then runs with `docker run --gpus all`.
# The wheels of CUDA builds bring CUDA's libraries; the host has the driver.
FROM python:3.11-slim

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_WAIT_POLICY=PASSIVE
RUN pip install --index-url "https://download.pytorch.org/whl/${TORCH}" torch

WORKDIR /opt/hf_unlearn
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE ./
COPY src src
RUN pip install ".[demo,app,nsfw]" && rm -rf build

# Not root: what a run writes belongs to the user whom --user names.
RUN useradd --create-home user && mkdir /work && chown user /work
USER user
WORKDIR /work
ENTRYPOINT ["hf-unlearn"]
CMD ["--help"]
