#!/usr/bin/env bash
# Installs Chromium, in which the dashboard is tested, when this machine has none.
set -euo pipefail
cd "$(dirname "$0")"
. ./apt.sh

for name in chromium chromium-browser google-chrome; do
	if command -v "$name" >/dev/null; then
		exit 0
	fi
done
need_packages chromium
