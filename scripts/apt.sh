# Sourced by the need-*.sh scripts: installing packages on Debian and Ubuntu.
# shellcheck shell=bash

# as_root runs a command as root, or fails when that is not possible.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
		sudo "$@"
	else
		return 1
	fi
}

# can_install says whether this machine and user can install Debian packages.
can_install() {
	command -v apt-get >/dev/null && as_root true
}

# apt_install installs packages. The package lists are fetched only when it
# does not go without: they may be missing, or too old for the mirror.
apt_install() {
	local options=(-y -q --no-install-recommends -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300)
	if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@"; then
		as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@"
	fi
}

# without_services runs a command while the packages that it installs may
# neither start their services nor create the distribution's own cluster. What
# it changes for that it takes back, also when interrupted, and what was there
# before it leaves. It is a subshell for the sake of its trap.
without_services() (
	policy=/usr/sbin/policy-rc.d
	drop_in=/etc/postgresql-common/createcluster.d/shardproxy.conf
	made=("$drop_in")
	[ -e "$policy" ] || made+=("$policy")
	trap 'as_root rm -f "${made[@]}"; as_root rmdir -p "${drop_in%/*}" 2>/dev/null || true' EXIT
	if [ "${#made[@]}" = 2 ]; then
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
		as_root chmod 755 "$policy"
	fi
	as_root mkdir -p "${drop_in%/*}"
	echo "create_main_cluster = false" | as_root tee "$drop_in" >/dev/null
	"$@"
)

# need_packages installs the packages given, or says how and fails.
need_packages() {
	if ! can_install; then
		echo "missing on this machine: $*" >&2
		if command -v apt-get >/dev/null; then
			echo "install them as root:  apt-get install $*" >&2
		else
			echo "these are the names of Debian's packages; install what your system calls them" >&2
		fi
		return 1
	fi
	echo "installing: $*"
	without_services apt_install "$@"
}
