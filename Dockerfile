# CPU: docker build --tag tumour .      CUDA: docker build --tag tumour:cuda --build-arg DEVICE=cuda .
FROM python:3.11.13-slim-bookworm
ARG DEVICE=cpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home user && install --directory --owner user /home/user/bundles
USER 1000
WORKDIR /home/user/bundles
ENV PATH=/home/user/bundles/.venv/bin:$PATH
COPY --chown=user:user Makefile environment.yml environment.lock ./
# PyTorch's own index has its build without CUDA
RUN if [ "$DEVICE" = cpu ]; then export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; fi \
    && make setup && rm -rf /home/user/.cache
COPY --chown=user:user . .
CMD ["python", "-m", "tools"]
