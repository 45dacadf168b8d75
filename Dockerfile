# One image a program: docker build --target csi-driver . ; likewise ccm, upcloud-doctor and upcloud-sim.
ARG GO_VERSION=1.26.10
ARG DEBIAN=bookworm

FROM golang:${GO_VERSION}-${DEBIAN} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/ ./cmd/...

# The node plugin formats, checks, grows and mounts file systems with Debian's own tools.
FROM debian:${DEBIAN}-slim AS csi-driver
ARG DRIVER_PACKAGES="btrfs-progs ca-certificates cryptsetup-bin e2fsprogs mount util-linux xfsprogs"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ${DRIVER_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/csi-driver /csi-driver
ENTRYPOINT ["/csi-driver"]

FROM scratch AS ccm
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ccm /ccm
USER 65534:65534
ENTRYPOINT ["/ccm"]

FROM scratch AS upcloud-doctor
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/upcloud-doctor /upcloud-doctor
USER 65534:65534
ENTRYPOINT ["/upcloud-doctor"]

FROM debian:${DEBIAN}-slim AS upcloud-sim
ARG SIMULATOR_PACKAGES="haproxy iproute2 util-linux"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ${SIMULATOR_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/upcloud-sim /upcloud-sim
ENTRYPOINT ["/upcloud-sim"]
