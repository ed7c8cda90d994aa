# syntax=docker/dockerfile:1
# The image of the controller and of msmctl. Pin the bases by digest where you build:
#   docker buildx build --sbom=true --provenance=mode=max \
#     --build-arg GO_IMAGE=golang:1.26-bookworm@sha256:… --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… .
ARG GO_IMAGE=golang:1.26-bookworm
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# The same kustomize that the tests run: its module and its sums are those of tools/kustomize.
FROM ${GO_IMAGE} AS kustomize
WORKDIR /src/kustomize
COPY tools/kustomize/go.mod tools/kustomize/go.sum ./
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /out/kustomize sigs.k8s.io/kustomize/kustomize/v5

FROM ${PYTHON_IMAGE} AS python
WORKDIR /src/controller
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/build.txt
RUN python3 -m venv /opt/smc && /opt/smc/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY deploy/install.yaml deploy/
COPY sharding sharding
COPY telemetry telemetry
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /out .
RUN /opt/smc/bin/pip install --quiet --no-cache-dir --no-deps --no-index /out/*.whl && /opt/smc/bin/pip uninstall --quiet --yes pip

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="secret-manager-controller" \
      org.opencontainers.image.description="Keeps cloud secret stores equal to SOPS-encrypted secrets in Git." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# gpg unwraps PGP data keys; git and ssh fetch what Argo CD's Applications name; libseccomp confines kustomize.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git gpg gpg-agent libseccomp2 openssh-client && rm -rf /var/lib/apt/lists/*
COPY --from=kustomize /out/kustomize /usr/local/bin/kustomize
COPY --from=python /opt/smc /opt/smc
ENV PATH=/opt/smc/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/opt/smc/bin/secret-manager-controller"]
