package config

import (
	"path/filepath"
	"time"
)

// Listen says where clients connect.
type Listen struct {
	// Addresses are host:port pairs; the file may give one or a list. Port 0
	// takes a free port, an empty host every interface. An empty list listens
	// on the Unix-domain socket only. Default: 127.0.0.1:6432.
	Addresses []string `yaml:"address" form:"one" default:"127.0.0.1:6432" apply:"restart"`
	// UnixSocketDirectory is where the socket .s.PGSQL.<port> is made, the port
	// being that of the first address, or 6432. Default: none, no such socket.
	UnixSocketDirectory string `yaml:"unix_socket_directory" path:"true" apply:"restart"`
	// UnixSocketMode holds the socket's permission bits. Default: 0777.
	UnixSocketMode FileMode `yaml:"unix_socket_mode" default:"0777" apply:"restart"`
	// ReusePort lets other processes of the same user listen on the addresses
	// too (SO_REUSEPORT), and take the Unix-domain socket over. Default: false.
	ReusePort bool `yaml:"reuse_port" default:"false" apply:"restart"`
	// PeerDirectory is where processes on one machine find each other, to pass
	// cancel requests on; see Peers. Default: none.
	PeerDirectory string `yaml:"peer_directory" path:"true" apply:"restart"`
	// TLS is nil when the file has no such section: clients cannot encrypt. Its
	// settings can change by a reload; whether there is TLS at all cannot.
	TLS *ServerTLS `yaml:"tls" apply:"restart"`
}

// Peers returns the folder in which processes on one machine find each other:
// PeerDirectory, else with ReusePort one in UnixSocketDirectory. It is empty when
// cancel requests are not passed on.
func (l *Listen) Peers() string {
	if l.PeerDirectory != "" || !l.ReusePort || l.UnixSocketDirectory == "" {
		return l.PeerDirectory
	}
	return filepath.Join(l.UnixSocketDirectory, ".shardproxy-peers")
}

// PeerNameMax bounds the length of the names of sockets in Listen.Peers, in bytes.
const PeerNameMax = 24

// UnixSocketPort is the port in the Unix-domain socket's name when no address
// gives one.
const UnixSocketPort = 6432

// TLS modes. The client side of the proxy knows the first, second and fourth,
// the server side all, with libpq's meaning of each.
const (
	TLSDisable    = "disable"
	TLSAllow      = "allow"
	TLSPrefer     = "prefer"
	TLSRequire    = "require"
	TLSVerifyCA   = "verify-ca"
	TLSVerifyFull = "verify-full"
)

// ServerTLS is the proxy as a TLS server towards its clients.
type ServerTLS struct {
	// Mode is disable, allow (the client chooses) or require (a connection
	// over TCP without TLS is refused). Default: allow. To or from disable
	// takes a restart.
	Mode string `yaml:"mode" enum:"disable|allow|require" default:"allow"`
	// Certificate is the PEM file of the certificate chain, the proxy's first.
	Certificate string `yaml:"certificate" path:"true"`
	// Key is the PEM file of the certificate's key, not encrypted.
	Key string `yaml:"key" path:"true"`
	// ClientCA is the PEM file of the authorities whose client certificates
	// are accepted. Default: none; no client certificate is asked for.
	ClientCA string `yaml:"client_ca" path:"true"`
	// MinVersion is the oldest TLS version accepted: 1.2 or 1.3. Default: 1.2.
	MinVersion string `yaml:"min_version" enum:"1.2|1.3" default:"1.2"`
}

// Admin says where operators look and who of them may steer.
type Admin struct {
	// Address is the host:port of the HTTP listener: /metrics, /livez, /readyz
	// and the dashboard. An empty one turns it off. Default: 127.0.0.1:9127.
	Address string `yaml:"address" default:"127.0.0.1:9127" apply:"restart"`
	// TLS has the listener speak TLS, and nothing else, with the certificate of
	// Listen.TLS. Default: false.
	TLS bool `yaml:"tls" default:"false" apply:"restart"`
	// Login says whether the listener asks for a password: auto once there are
	// AdminUsers or MonitorUsers, required always, off never. Default: auto.
	Login string `yaml:"login" enum:"auto|required|off" default:"auto"`
	// Open is what is answered without a password all the same: probes (/livez,
	// /readyz), metrics (/metrics). Default: probes.
	Open []string `yaml:"open" form:"one" enum:"probes|metrics" default:"probes"`
	// Hosts are the names by which the listener may be asked for, beside IP
	// addresses, localhost and the host of Address. Default: none.
	Hosts []string `yaml:"hosts" form:"one"`
	// Pprof serves Go's profiles of the program under /debug/pprof/ there, to
	// AdminUsers; where no password is asked for, only on a loopback address.
	// Default: false.
	Pprof bool `yaml:"pprof" default:"false" apply:"restart"`
	// AdminUsers may connect to the console database and run every command
	// there, and may do everything on the listener. Default: nobody.
	AdminUsers []string `yaml:"admin_users" form:"one"`
	// MonitorUsers may connect to the console database and look (SHOW), and
	// may look on the listener.
	// Default: nobody.
	MonitorUsers []string `yaml:"monitor_users" form:"one"`
}

// Values of Admin.Login and Admin.Open.
const (
	AdminLoginAuto     = "auto"
	AdminLoginRequired = "required"
	AdminLoginOff      = "off"
	AdminOpenProbes    = "probes"
	AdminOpenMetrics   = "metrics"
)

// AsksPassword reports whether the listener asks for a password.
func (a *Admin) AsksPassword() bool {
	switch a.Login {
	case AdminLoginRequired:
		return true
	case AdminLoginOff:
		return false
	}
	return len(a.AdminUsers)+len(a.MonitorUsers) > 0
}

// Limits bound what clients can take. A count of 0 means no limit.
type Limits struct {
	// MaxClients bounds the client connections in all; 100 more may be on their way
	// in or out. Default: 10000.
	MaxClients int `yaml:"max_clients" default:"10000" min:"1" max:"1000000"`
	// MaxClientsPerUser bounds each user's client connections. Default: 0.
	MaxClientsPerUser int `yaml:"max_clients_per_user" default:"0" min:"0" max:"1000000"`
	// MaxClientsPerDatabase bounds each database's client connections. Default: 0.
	MaxClientsPerDatabase int `yaml:"max_clients_per_database" default:"0" min:"0" max:"1000000"`
	// MessageSize bounds one protocol message of an authenticated client, in
	// bytes; a bigger one is refused before it is read. Default: 1 GiB.
	MessageSize Size `yaml:"message_size" default:"1GiB" min:"64KiB" max:"1GiB"`
	// ParsedStatement is the longest statement text, in bytes, that is parsed.
	// Default: 1 MiB.
	ParsedStatement Size `yaml:"parsed_statement" default:"1MiB" min:"1KiB" max:"64MiB" apply:"restart"`
	// StatementSize bounds the text of a statement, and its parameters, in bytes, at least 64 KiB; 0: no
	// limit. Default: 0.
	StatementSize Size `yaml:"statement_size" default:"0" min:"0" max:"1GiB"`
	// ResultSize bounds the rows that one statement gives, in bytes; 0: no limit. Default: 0.
	ResultSize Size `yaml:"result_size" default:"0" min:"0" max:"1TiB"`
	// Gather bounds what one statement gathers in the proxy of rows of several shards, in bytes.
	// Default: 64 MiB.
	Gather Size `yaml:"gather" default:"64MiB" min:"1MiB" max:"16GiB"`
	// StartupPacket bounds a client's first packet, in bytes. Default: 10000,
	// PostgreSQL's own bound.
	StartupPacket Size `yaml:"startup_packet" default:"10000B" min:"512B" max:"1MiB"`
	// PlanCache bounds the plans kept for all clients, in bytes. Default: 64 MiB.
	PlanCache Size `yaml:"plan_cache" default:"64MiB" min:"1MiB" max:"64GiB" apply:"restart"`
	// Statements bounds the statements whose costs are counted, by fingerprint, for each database; 0 counts
	// nothing. Default: 1000.
	Statements int `yaml:"statements" default:"1000" min:"0" max:"1000000" apply:"restart"`
	// SessionStatements bounds the prepared statements one client may hold.
	// Default: 10000.
	SessionStatements int `yaml:"session_statements" default:"10000" min:"1" max:"1000000"`
	// SessionStatementBytes bounds the texts of the prepared statements one
	// client may hold, in bytes. Default: 64 MiB.
	SessionStatementBytes Size `yaml:"session_statement_bytes" default:"64MiB" min:"64KiB" max:"16GiB"`
	// Rates bound what clients do in a second.
	Rates Rates `yaml:"rates"`
	// Concurrent bounds what runs at a time.
	Concurrent Concurrency `yaml:"concurrent"`
}

// Timeouts bound how long clients can take. 0 means no bound.
type Timeouts struct {
	// Login bounds the time from accepting a connection to the end of
	// authentication. Default: 1 min.
	Login time.Duration `yaml:"login" default:"1m" min:"1s" max:"1h"`
	// Query bounds one statement's time on a server. Default: 0.
	Query time.Duration `yaml:"query" default:"0" min:"0" max:"30d"`
	// IdleInTransaction bounds a client's silence inside a transaction. Default: 0.
	IdleInTransaction time.Duration `yaml:"idle_in_transaction" default:"0" min:"0" max:"30d"`
	// ClientIdle bounds a client's silence outside transactions. Default: 0.
	ClientIdle time.Duration `yaml:"client_idle" default:"0" min:"0" max:"30d"`
}

// Log says what is logged and how.
type Log struct {
	// Level is debug, info, warn or error. Default: info.
	Level string `yaml:"level" enum:"debug|info|warn|error" default:"info"`
	// Format is text or json. Default: text.
	Format string `yaml:"format" enum:"text|json" default:"text" apply:"restart"`
	// SlowStatement is the time from which a statement is logged, waits included; 0 logs none. Default: 0.
	SlowStatement time.Duration `yaml:"slow_statement" default:"0" min:"0" max:"1d"`
}

// Shutdown says how the program ends.
type Shutdown struct {
	// Timeout bounds the wait for clients (SIGTERM) or for servers (SIGINT);
	// what is left then is closed. 0 waits for ever. Default: 30 s.
	Timeout time.Duration `yaml:"timeout" default:"30s" min:"0" max:"30d"`
}
