#!/usr/bin/env bash
# Installs the Node.js packages that the package-lock.json of the folder given
# pins into a folder of the user's cache, once for each version of that file,
# and prints the folder to put into NODE_PATH.
set -euo pipefail
cd "$1"

if ! command -v npm >/dev/null; then
	echo "npm is missing: run scripts/need-drivers.sh, or as root: apt-get install nodejs npm" >&2
	exit 1
fi
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/shardproxy/node
folder=$cache/$(cat package.json package-lock.json | cksum | tr ' ' '-')

if [ ! -d "$folder" ]; then
	# Into a folder of this process first: who comes at the same time must not
	# find half of it.
	mkdir -p "$cache"
	fresh=$(mktemp -d "$cache/new.XXXXXX")
	trap 'rm -rf "$fresh"' EXIT
	cp package.json package-lock.json "$fresh"
	npm ci --prefix "$fresh" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
	mv -T "$fresh" "$folder" 2>/dev/null || [ -d "$folder/node_modules" ]
fi
echo "$folder/node_modules"
