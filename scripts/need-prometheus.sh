#!/usr/bin/env bash
# Installs promtool, which tests the alerts of deploy/prometheus, when this machine has none. Debian has it in
# the package of Prometheus, whose server is not started.
set -euo pipefail
cd "$(dirname "$0")"
. ./apt.sh

if command -v promtool >/dev/null; then
	exit 0
fi
if ! need_packages prometheus; then
	echo "promtool of Prometheus 2.40 or later is needed in PATH." >&2
	exit 1
fi
command -v promtool >/dev/null || {
	echo "Prometheus was installed, but promtool is not in PATH" >&2
	exit 1
}
