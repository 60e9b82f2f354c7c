# Targets `api` and `worker`: the same small image, each with its own command and health check.
# A release is the same code as `pip install .[servers]`; what only the embedded deployment needs
# (two database servers and a search library) stays out, see requirements/image.txt.

FROM python:3.13.15-slim-trixie AS base

FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Scripts name the environment's Python, so that it is made where it will be run from.
RUN python -m venv --without-pip /opt/polyglot && python -m venv --without-pip /opt/backend
COPY requirements/build.txt requirements/image.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/backend install --no-deps --require-hashes -r requirements/build.txt && \
    pip --python /opt/polyglot install --no-deps --require-hashes -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# With the pinned build backend, and without pip fetching anything itself.
RUN pip --python /opt/backend wheel --no-index --no-deps --no-build-isolation --wheel-dir /dist . && \
    pip --python /opt/polyglot install --no-index --no-deps /dist/*.whl

FROM base AS runtime
# The number is given too, so that an orchestrator can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin polyglot
COPY --from=build /opt/polyglot /opt/polyglot
COPY deploy/image/alive.py /opt/alive.py
# Nothing is ever written: not even compiled modules, which the build has made.
ENV PATH=/opt/polyglot/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
# More than SHUTDOWN_TIMEOUT_SECONDS is to be left between this and the kill.
STOPSIGNAL SIGTERM

FROM runtime AS worker
ENV WORKER_PORT=8081
EXPOSE 8081
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-I", "/opt/alive.py", "WORKER_PORT"]
ENTRYPOINT ["polyglot", "worker"]

FROM runtime AS api
ENV API_PORT=8080
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-I", "/opt/alive.py", "API_PORT"]
ENTRYPOINT ["polyglot", "api"]
