# osbc-deploy at the versions of constraints.txt: docker build -t osbc-deploy .
# --build-arg PIP_EXTRA_INDEX_URL=... names the index that has PyTorch's build for the CPU.
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=lava,snntorch
# A C compiler measures exports.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc gcc-arm-none-eabi libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[$EXTRAS]" \
    && pip install --no-cache-dir --no-deps --ignore-requires-python lava-nc==0.10.0 \
    && rm -rf /src
RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["osbc-deploy"]
