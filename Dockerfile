# CPU: docker build --tag tumour .      CUDA: docker build --tag tumour:cuda --build-arg DEVICE=cuda .
FROM python:3.11.13-slim-bookworm
ARG DEVICE=cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /home/user/bundles
COPY environment.yml ./
# the pip part of environment.yml; PyTorch's own index has its build without CUDA
RUN sed -n 's/^      - \([^ ]*\).*/\1/p' environment.yml > /tmp/requirements.txt \
    && if [ "$DEVICE" = cpu ]; then export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu; fi \
    && pip install --no-cache-dir --requirement /tmp/requirements.txt \
    && useradd --uid 1000 --create-home user \
    && chown user:user /home/user/bundles
COPY --chown=user:user . .
USER 1000
CMD ["python", "-m", "tools"]
