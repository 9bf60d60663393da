# Sourced by regress.sh: the server and the proxy that the suite runs against.
# Both run as an ordinary user, in a folder of their own, on loopback.
# shellcheck shell=bash

# find_server sets what is installed: $major, $bin, $pgxs, $installed.
find_server() {
	local dir
	for dir in "${SHARDPROXY_PG_BINDIR:-}" $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr); do
		[ -n "$dir" ] && [ -x "$dir/initdb" ] && bin=$dir && break
	done
	if [ -z "${bin:-}" ]; then
		echo "regress: no server in /usr/lib/postgresql/*/bin; make need" >&2
		return 1
	fi
	major=$("$bin/postgres" --version | sed -E 's/.*PostgreSQL\) ([0-9]+).*/\1/')
	pgxs=${bin%/bin}/lib/pgxs/src/test/regress
	# The suite belongs to one version of Debian's package.
	installed=$(dpkg-query -W -f='${Version}' "postgresql-$major")
	[ -x "$pgxs/pg_regress" ] || {
		echo "regress: $pgxs/pg_regress is missing" >&2
		return 1
	}
}

# as_server runs a command as the account of the servers: PostgreSQL refuses
# to run as root, and what the suite's psql writes the server must read.
as_server() { (become "$@"); }

# become is as_server in place of this shell.
become() {
	if [ "$(id -u)" = 0 ]; then
		exec setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
	fi
	exec "$@"
}

# make_run_folder makes $run with a copy of the suite that the server reaches.
make_run_folder() {
	run=$(mktemp -d /tmp/shardproxy-regress.XXXXXX)
	cp -r "$suite" "$run/suite"
	local lib
	for lib in refint autoinc; do
		cp "${bin%/bin}/lib/$lib.so" "$run/suite/"
	done
	[ "$(id -u)" != 0 ] || chown -R postgres "$run"
}

# free_port prints a port that nobody listens on.
free_port() {
	local port
	for port in $(shuf -i 20000-32000 -n 50); do
		(: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port" && return; }
	done
	return 1
}

# start_server makes a new server with the database regression, as pg_regress
# would make it for itself.
start_server() {
	server_port=$(free_port)
	as_server "$bin/initdb" -D "$run/data" -U postgres -A trust -E UTF8 --no-locale --no-sync >"$run/initdb.log"
	as_server tee -a "$run/data/postgresql.conf" >/dev/null <<-EOF
		listen_addresses = '127.0.0.1'
		port = $server_port
		unix_socket_directories = '$run'
		fsync = off
		max_connections = 200
		max_prepared_transactions = 2
		log_line_prefix = '%m [%p] %q%u@%d %a '
		${SERVER_LOG:+log_statement = all}
	EOF
	as_server "$bin/pg_ctl" -D "$run/data" -l "$run/server.log" -s -w start
	server_runs=1
	local setting
	{
		echo "CREATE DATABASE regression TEMPLATE = template0;"
		for setting in lc_messages=C lc_monetary=C lc_numeric=C lc_time=C bytea_output=hex timezone_abbreviations=Default; do
			echo "ALTER DATABASE regression SET ${setting%=*} TO '${setting#*=}';"
		done
	} | as_server "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$run" -p "$server_port" -U postgres postgres
}

stop_server() {
	[ -n "${server_runs:-}" ] || return 0
	as_server "$bin/pg_ctl" -D "$run/data" -s -m immediate stop || true
	server_runs=
}

# start_proxy builds and starts the proxy in front of the server.
start_proxy() {
	proxy_port=$(free_port)
	if [ -n "${PROXY:-}" ]; then
		cp "$PROXY" "$run/shardproxy"
	else
		(cd "$root" && go build -o "$run/shardproxy" ./cmd/shardproxy)
	fi
	local name
	{
		echo "listen: {address: 127.0.0.1:$proxy_port}"
		echo "admin: {address: 127.0.0.1:$(free_port)}"
		echo "users: [{name: postgres, password: unused}]"
		echo "auth: {rules: [{method: trust}]}"
		echo "databases:"
		for name in regression postgres template1; do
			echo "  $name:"
			echo "    shards: [{name: s0, nodes: [\"127.0.0.1:$server_port\"]}]"
			echo "    pool: {mode: $mode, size: 50}"
		done
	} | as_server tee "$run/proxy.yaml" >/dev/null
	chmod 600 "$run/proxy.yaml"
	become "$run/shardproxy" run --config "$run/proxy.yaml" >"$run/proxy.log" 2>&1 &
	proxy_pid=$!
	local try
	for try in $(seq 100); do
		kill -0 "$proxy_pid" 2>/dev/null || break
		"$bin/psql" -X -q -h 127.0.0.1 -p "$proxy_port" -U postgres regression -c "SELECT" >/dev/null 2>&1 && return
		sleep 0.1
	done
	echo "regress: the proxy does not serve:" >&2
	cat "$run/proxy.log" >&2
	return 1
}

stop_proxy() {
	[ -n "${proxy_pid:-}" ] || return 0
	# By now its clients are gone, so there is nothing to drain.
	kill "$proxy_pid" 2>/dev/null || true
	timeout 10 tail --pid="$proxy_pid" -f /dev/null || kill -KILL "$proxy_pid" 2>/dev/null || true
	wait "$proxy_pid" 2>/dev/null || true
	proxy_pid=
}

# end_all leaves nothing.
end_all() {
	stop_proxy
	stop_server
	rm -rf "${run:?}"
}
