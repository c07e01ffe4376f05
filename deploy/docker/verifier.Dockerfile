# The verifier. Build from the repository root: docker build -f deploy/docker/verifier.Dockerfile -t rexis-verifier .
FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 REXIS_SERVICE=verifier
RUN --mount=type=bind,source=requirements,target=/requirements \
    pip install --no-cache-dir --require-hashes -r /requirements/service.txt
COPY rexis /app/rexis
COPY services/__init__.py /app/services/__init__.py
COPY services/foundation /app/services/foundation
COPY services/admin /app/services/admin
COPY services/verifier /app/services/verifier
COPY contracts/artifacts /app/contracts/artifacts
COPY contracts/deployments /app/contracts/deployments
COPY deploy/docker/entrypoint /usr/local/bin/entrypoint
WORKDIR /app
RUN useradd --uid 10001 --no-create-home rexis
USER 10001
EXPOSE 8000
ENTRYPOINT ["entrypoint"]
CMD ["api"]
