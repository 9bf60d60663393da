# shardproxy in a container.
#
#   docker build -t shardproxy --build-arg VERSION=0.1.0 .
#   docker run -v ./shardproxy.yaml:/etc/shardproxy/shardproxy.yaml:ro -p 6432:6432 shardproxy
#
# The root file system may be read-only; the program writes nothing but its log
# on standard error, and a Unix-domain socket and an audit log where they are
# configured (audit.file may be /dev/stdout). The configuration must be readable
# by user 65532.

# The SQL parser is PostgreSQL's own, in C: the program is linked with the C
# library of the Debian release it is built on, which must be that of the runtime.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=1 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/shardproxy ./cmd/shardproxy

FROM debian:bookworm-slim
# The certificates are for servers with tls.mode verify-full and no ca. "dump"
# and shards that join also need pg_dump, no older than the servers:
# --build-arg PACKAGES=postgresql-client
ARG PACKAGES=""
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/shardproxy /usr/local/bin/shardproxy
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /etc/shardproxy
EXPOSE 6432 9127
# SIGINT ends each client when its transaction is over. SIGTERM would wait for
# clients to leave, which pooled ones never do. Both wait shutdown.timeout at
# most, 30 s by default: stop with more time than that (docker stop -t 40).
STOPSIGNAL SIGINT
# The address and not the configuration file: a check must not fail because the
# file is being edited. With another admin.address give another --health-cmd.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
  CMD ["shardproxy", "ready", "--address", "127.0.0.1:9127"]
ENTRYPOINT ["shardproxy"]
CMD ["run", "--config", "/etc/shardproxy/shardproxy.yaml"]
