#!/usr/bin/env bash
# Packs the Helm chart with the alerts and dashboards, which templates can read
# only inside of the chart: dist/shardproxy-chart.tgz, or the path given.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-dist/shardproxy-chart.tgz}
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cp -r deploy/helm/shardproxy "$stage/shardproxy"
mkdir -p "$stage/shardproxy/files/dashboards" "$(dirname "$out")"
[ ! -e deploy/prometheus/shardproxy.rules.yml ] || cp deploy/prometheus/shardproxy.rules.yml "$stage/shardproxy/files/"
for board in deploy/grafana/*.json; do
	[ ! -e "$board" ] || cp "$board" "$stage/shardproxy/files/dashboards/"
done
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$stage" -czf "$out" shardproxy
echo "$out"
