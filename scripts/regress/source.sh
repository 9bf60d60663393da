# Sourced by regress.sh: brings PostgreSQL's regression suite of the installed
# server's version into the cache.
# shellcheck shell=bash

# apt_apart runs an apt program with a configuration, lists and a cache of its
# own, in the folder $apt: those of the machine stay as they are.
apt_apart() {
	local program=$1
	shift
	"$program" -q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/sources.list.d" \
		-o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}

# write_sources takes the machine's package sources and adds source packages.
write_sources() {
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/sources.list.d"
	cp /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources "$apt/sources.list.d/" 2>/dev/null || true
	cat /etc/apt/sources.list >"$apt/sources.list" 2>/dev/null || true
	local file
	for file in "$apt/sources.list" "$apt"/sources.list.d/*; do
		case $file in
		*.sources) sed -i -E 's/^(Types:.*\bdeb)\b( deb-src)?/\1 deb-src/' "$file" ;;
		*) sed -i -E '/^deb[[:space:]]/{p; s/^deb/deb-src/}' "$file" ;;
		esac
	done
	apt_apart apt-get update >&2
}

# versions prints what can be had of a package, one version per line.
versions() {
	apt_apart apt-cache madison "$1" | awk -F'|' -v kind="$2" '$3 ~ kind { gsub(/ /, "", $2); print $2 }' | sort -uV
}

# choose prints the version of a package to take: the installed server's, or
# with a loud note the next one of the same major version.
choose() {
	local package=$1 kind=$2 all pick
	all=$(versions "$package" "$kind")
	if grep -Fxq "$installed" <<<"$all"; then
		echo "$installed"
		return
	fi
	pick=$(printf '%s\n%s\n' "$all" "$installed" | sort -V | grep -FxA1 "$installed" | tail -n 1)
	[ "$pick" != "$installed" ] || pick=$(tail -n 1 <<<"$all")
	if [ -z "$pick" ]; then
		echo "regress: no $kind of $package can be had; the installed server is $installed" >&2
		return 1
	fi
	{
		echo "regress: ############################################################"
		echo "regress: # $package $installed ($kind) cannot be had; taking $pick."
		echo "regress: # Differences may come from that and not from the proxy."
		echo "regress: ############################################################"
	} >&2
	echo "$pick"
}

# bring_suite makes $suite: sql/, expected/, data/, the schedule and regress.so.
# The server's headers come from the development package, which is unpacked
# beside and not installed: it would bring a second compiler along. It is a
# subshell for the sake of its trap.
bring_suite() (
	[ ! -e "$suite/complete" ] || exit 0
	for program in gcc apt-get dpkg; do
		command -v "$program" >/dev/null && continue
		echo "regress: there is no $program; the suite is built from Debian's source package with gcc" >&2
		exit 1
	done
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	apt=$work/apt
	write_sources
	source=$(choose "postgresql-$major" Sources)
	headers=$(choose "postgresql-server-dev-$major" Packages)
	cd "$work"
	apt_apart apt-get source --download-only "postgresql-$major=$source" >&2
	apt_apart apt-get download "postgresql-server-dev-$major=$headers" >&2
	dpkg -x ./postgresql-server-dev-*.deb headers
	mkdir tree
	tar xf ./*.orig.tar.* -C tree --strip-components=1 --wildcards '*/src/test/regress'
	cd tree/src/test/regress
	gcc -O2 -fPIC -shared -fno-strict-aliasing -fwrapv -I. \
		-I"$work/headers/usr/include/postgresql/$major/server" -I/usr/include/postgresql \
		-o regress.so regress.c
	echo "$source" >complete
	rm -rf "$suite"
	mkdir -p "${suite%/*}"
	mv "$PWD" "$suite"
)
