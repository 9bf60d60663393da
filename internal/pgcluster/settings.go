package pgcluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// baseSettings are for servers that are small, start fast and whose data
// nobody will miss, with everything on that a proxy's work may need.
// dynamic_shared_memory_type keeps segments in the data directory: those of a
// killed server in /dev/shm would stay for ever.
const baseSettings = `
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
wal_level = logical
wal_log_hints = on
wal_keep_size = 1GB
max_wal_size = 1GB
max_wal_senders = 20
max_replication_slots = 20
max_prepared_transactions = 50
wal_retrieve_retry_interval = 100ms
hot_standby = on
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d %a '
`

// defaultHBA lets the superuser in without a password and everybody else with
// SCRAM.
const defaultHBA = `
host all         postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all         all      127.0.0.1/32 scram-sha-256
`

// localHBA keeps the superuser's way in through the Unix socket open whatever
// a test wants pg_hba.conf to say. Nobody else reaches the socket's folder.
const localHBA = `
local all         postgres trust
local replication postgres trust
local all         all      scram-sha-256
`

// conf returns what is appended to postgresql.conf; a later line wins.
func (n *Node) conf() string {
	var b strings.Builder
	c := n.cluster
	b.WriteString("\n" + baseSettings)
	fmt.Fprintf(&b, "port = %d\nunix_socket_directories = %s\ncluster_name = %s\nmax_connections = %d\n",
		n.Port(), quote(c.dir), quote(n.name), c.maxConnections())
	if c.tls != nil {
		fmt.Fprintf(&b, "ssl = on\nssl_cert_file = %s\nssl_key_file = %s\nssl_ca_file = %s\n",
			quote(c.tls.certFile), quote(c.tls.keyFile), quote(c.tls.CAFile))
	}
	if n.follows != nil {
		fmt.Fprintf(&b, "primary_conninfo = %s\n", quote(n.follows.conninfo(n.name)))
	}
	for _, name := range slices.Sorted(maps.Keys(c.options.Settings)) {
		fmt.Fprintf(&b, "%s = %s\n", name, quote(c.options.Settings[name]))
	}
	return b.String()
}

// hba returns the whole of pg_hba.conf.
func (c *Cluster) hba() string {
	if c.options.HBA != "" {
		return localHBA + c.options.HBA + "\n"
	}
	return localHBA + defaultHBA
}

// conninfo is how a standby with the given name reaches this node.
func (n *Node) conninfo(name string) string {
	return fmt.Sprintf("host=%s port=%d user=%s application_name=%s", n.cluster.dir, n.Port(), Superuser, name)
}

// quote writes a value as postgresql.conf wants it.
func quote(s string) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}
