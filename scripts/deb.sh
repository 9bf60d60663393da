#!/usr/bin/env bash
# Builds dist/shardproxy_<version>_<architecture>.deb on Debian, for that release
# of Debian and later ones: the program is linked with its C library.
#
#   scripts/deb.sh [version]       BINARY=path takes a program that is built already
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:-0.1.0~dev}
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 755 "$stage"
umask 022
doc=$stage/usr/share/doc/shardproxy

mkdir -p "$stage/usr/bin" "$stage/usr/lib/systemd/system" "$stage/etc/shardproxy" "$stage/usr/share/man/man1" "$doc" "$stage/DEBIAN" \
	"$stage/usr/share/bash-completion/completions" "$stage/usr/share/zsh/vendor-completions" "$stage/usr/share/fish/vendor_completions.d"
program=$stage/usr/bin/shardproxy
if [ -n "${BINARY:-}" ]; then
	install -m 755 "$BINARY" "$program"
else
	CGO_ENABLED=1 go build -trimpath -ldflags "-X main.version=$version" -o "$program" ./cmd/shardproxy
fi
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$program"

# The units name the place of a program that was copied by hand.
for unit in shardproxy.service shardproxy@.service; do
	sed -e '/^# Copy to/,/^$/d' -e 's|/usr/local/bin/|/usr/bin/|' "deploy/systemd/$unit" >"$stage/usr/lib/systemd/system/$unit"
done
cp deploy/systemd/shardproxy.socket "$stage/usr/lib/systemd/system/"
install -m 640 deploy/debian/shardproxy.yaml "$stage/etc/shardproxy/shardproxy.yaml"
echo /etc/shardproxy/shardproxy.yaml >"$stage/DEBIAN/conffiles"

"$program" man "$stage/usr/share/man/man1"
gzip -9n "$stage"/usr/share/man/man1/*.1
"$program" completion bash >"$stage/usr/share/bash-completion/completions/shardproxy"
"$program" completion zsh >"$stage/usr/share/zsh/vendor-completions/_shardproxy"
"$program" completion fish >"$stage/usr/share/fish/vendor_completions.d/shardproxy.fish"
cp deploy/debian/copyright "$doc/copyright"
gzip -9nc CHANGELOG.md >"$doc/CHANGELOG.md.gz"
# Debian's own form, which tools read.
gzip -9nc >"$doc/changelog.gz" <<EOF
shardproxy ($version) unstable; urgency=medium

  * See CHANGELOG.md.gz.

 -- The shardproxy authors <shardproxy@localhost>  $(date -R -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}")
EOF
install -m 755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$stage/DEBIAN/"

# The C library of this release, or a later one.
libc=$(dpkg-query -W -f '${Version}' libc6)
cat >"$stage/DEBIAN/control" <<EOF
Package: shardproxy
Version: $version
Architecture: $arch
Maintainer: The shardproxy authors <shardproxy@localhost>
Section: database
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f1)
Depends: libc6 (>= ${libc%%-*}), adduser
Recommends: ca-certificates
Suggests: postgresql-client
Description: PostgreSQL proxy: pooling, replica reads, shards
 Thousands of clients share a few server connections, reads go to healthy
 replicas, and while a primary is replaced, writes wait. A database may be made
 of several shards: rows are placed by a key, a query over all shards gives
 PostgreSQL's own answer, and a transaction commits on all of them or on none.
EOF
mkdir -p dist
dpkg-deb --root-owner-group -Zxz --build "$stage" "dist/shardproxy_${version}_${arch}.deb"
