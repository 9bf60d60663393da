package config

import (
	"net/netip"
	"time"
)

// User is one client user. A zero override means: as the database, or the
// section limits or timeouts, says.
type User struct {
	// Name is what the client logs in as.
	Name string `yaml:"name" required:"true"`
	// Password is the plain password. It also logs in to the servers unless
	// other credentials are given for that. At most one of Password,
	// PasswordFile and Verifier is given.
	Password Secret `yaml:"password"`
	// PasswordFile holds Password; Load reads it into Password.
	PasswordFile string `yaml:"password_file" path:"true"`
	// Verifier is a SCRAM-SHA-256$... or md5... string as pg_authid has it.
	Verifier Secret `yaml:"verifier"`
	// CertificateNames are the common names of client certificates that may
	// log in as the user. Default: the user's name, which Load fills in.
	CertificateNames []string `yaml:"certificate_names" form:"one"`
	// PoolMode overrides the database's. Default: empty, it does not.
	PoolMode PoolMode `yaml:"pool_mode" enum:"transaction|session|statement"`
	// CrossShard overrides the database's. Default: empty, it does not.
	CrossShard CrossShard `yaml:"cross_shard" enum:"allow|warn|refuse"`
	// Snapshot overrides the database's. Default: empty, it does not.
	Snapshot Snapshot `yaml:"snapshot" enum:"transaction|statement|off"`
	// PoolSize overrides the database's pool.size; 0 does not. Default: 0.
	PoolSize int `yaml:"pool_size" default:"0" min:"0" max:"100000"`
	// MaxClients overrides limits.max_clients_per_user; 0 does not. Default: 0.
	MaxClients int `yaml:"max_clients" default:"0" min:"0" max:"1000000"`
	// MaxServers bounds the user's server connections in each database; 0
	// does not. Default: 0.
	MaxServers int `yaml:"max_servers" default:"0" min:"0" max:"1000000"`
	// StatementSize overrides the database's statement_size; 0 does not. Default: 0.
	StatementSize Size `yaml:"statement_size" default:"0" min:"0" max:"1GiB"`
	// ResultSize overrides the database's result_size; 0 does not. Default: 0.
	ResultSize Size `yaml:"result_size" default:"0" min:"0" max:"1TiB"`
	// ServerUser logs in to the servers in place of Name, and of the
	// database's server.user. Default: empty, none.
	ServerUser string `yaml:"server_user"`
	// ServerPassword logs in to the servers in place of Password.
	ServerPassword Secret `yaml:"server_password"`
	// ServerPasswordFile holds ServerPassword; Load reads it into ServerPassword.
	ServerPasswordFile string `yaml:"server_password_file" path:"true"`
	// Timeouts override the section timeouts.
	Timeouts UserTimeouts `yaml:"timeouts"`
	// Rates stand in place of limits.rates.user. Default: nil, they do not.
	Rates *Rate `yaml:"rates"`
	// Concurrent stands in place of limits.concurrent.user. Default: nil, it does not.
	Concurrent *Concurrent `yaml:"concurrent"`
}

// UserTimeouts override the section timeouts for one user. nil does not; 0 is
// no bound.
type UserTimeouts struct {
	// Query overrides timeouts.query.
	Query *time.Duration `yaml:"query" min:"0" max:"30d"`
	// IdleInTransaction overrides timeouts.idle_in_transaction.
	IdleInTransaction *time.Duration `yaml:"idle_in_transaction" min:"0" max:"30d"`
	// ClientIdle overrides timeouts.client_idle.
	ClientIdle *time.Duration `yaml:"client_idle" min:"0" max:"30d"`
}

// Or returns t with what u overrides replaced.
func (u UserTimeouts) Or(t Timeouts) Timeouts {
	for _, o := range []struct{ by, of *time.Duration }{
		{u.Query, &t.Query}, {u.IdleInTransaction, &t.IdleInTransaction}, {u.ClientIdle, &t.ClientIdle},
	} {
		if o.by != nil {
			*o.of = *o.by
		}
	}
	return t
}

// ServerLogin returns how the user logs in to a server when the database names
// no login of its own: by ServerUser and ServerPassword, or by what the client
// logs in with. The password is empty when only a verifier is known.
func (u *User) ServerLogin() Login {
	l := Login{User: u.Name, Password: u.Password}
	if u.ServerUser != "" {
		l = Login{User: u.ServerUser}
	}
	if !u.ServerPassword.Empty() {
		l.Password = u.ServerPassword
	}
	return l
}

// Method is how a client proves who it is.
type Method string

// The methods of authentication, with pg_hba.conf's meaning of each.
const (
	MethodSCRAM    Method = "scram-sha-256"
	MethodMD5      Method = "md5" // SCRAM where the user's secret is a SCRAM verifier
	MethodPassword Method = "password"
	MethodCert     Method = "cert"
	MethodTrust    Method = "trust"
	MethodReject   Method = "reject"
)

// Words of a Rule.
const (
	All = "all" // every database or user

	RuleTLSAny     = "any"
	RuleTLSRequire = "require"
	RuleTLSNone    = "none"

	TransportAny  = "any"
	TransportTCP  = "tcp"
	TransportUnix = "unix"
)

// Auth says how clients prove who they are.
type Auth struct {
	// Rules are tried in order; the first that matches decides. Load fills in
	// one, scram-sha-256 for everybody, when the file has none.
	Rules []Rule `yaml:"rules"`
	// AuthQuery asks a server for the users that the file does not list; nil
	// when the file has no such section.
	AuthQuery *AuthQuery `yaml:"auth_query"`
	// AllowCleartext lets rules of the method password match connections
	// without TLS. Default: false.
	AllowCleartext bool `yaml:"allow_cleartext" default:"false"`
	// Throttle slows an address down that fails to log in.
	Throttle Throttle `yaml:"throttle"`
	// Secret keys the salts that the proxy shows where it has none from a
	// server: for plain passwords and for names that nobody has. Proxies with
	// the same one show the same. Default: empty, a random one per process.
	Secret Secret `yaml:"secret" apply:"restart"`
	// SecretFile holds Secret; Load reads it into Secret.
	SecretFile string `yaml:"secret_file" path:"true" apply:"restart"`
	// MaxDerivations bounds the derivations of SCRAM keys from plain passwords
	// that run at a time, 0: half of the processors. Default: 0.
	MaxDerivations int `yaml:"max_derivations" default:"0" min:"0" max:"1024"`
}

// Rule is one line of the rule list, as in pg_hba.conf.
type Rule struct {
	// Databases are names, or "all". Default: all.
	Databases []string `yaml:"databases" form:"one" default:"all"`
	// Users are names, or "all". Default: all.
	Users []string `yaml:"users" form:"one" default:"all"`
	// Addresses are those of the client, in CIDR form or alone; "all" in the
	// file stands for every address. Empty matches every client; otherwise a
	// client on the Unix-domain socket does not match. Default: empty.
	Addresses []netip.Prefix `yaml:"addresses" form:"one"`
	// Transport is any, tcp or unix. Default: any.
	Transport string `yaml:"transport" enum:"any|tcp|unix" default:"any"`
	// TLS is any, require or none. Default: any.
	TLS string `yaml:"tls" enum:"any|require|none" default:"any"`
	// Method is scram-sha-256, md5, password, cert, trust or reject.
	Method Method `yaml:"method" enum:"scram-sha-256|md5|password|cert|trust|reject" required:"true"`
}

// DefaultAuthQuery reads pg_authid, which takes a superuser; others write a
// SECURITY DEFINER function and call it.
const DefaultAuthQuery = "SELECT rolpassword, rolvaliduntil FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"

// AuthQuery asks a server for the users that the file does not list.
type AuthQuery struct {
	// Query is run with the user's name as $1. It returns no row, or one whose
	// first column is the verifier and whose second, if any, is the time from
	// which it is not valid. Default: DefaultAuthQuery.
	Query string `yaml:"query" default:"SELECT rolpassword, rolvaliduntil FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"`
	// User logs in to the server to run Query.
	User string `yaml:"user" required:"true"`
	// Password is User's; empty when the server does not ask for one.
	Password Secret `yaml:"password"`
	// PasswordFile holds Password; Load reads it into Password.
	PasswordFile string `yaml:"password_file" path:"true"`
	// Database names the database of the file whose home shard is asked.
	// Default: empty, the one that the client asks for.
	Database string `yaml:"database"`
	// Timeout bounds one query with the wait for its connection. Default: 5 s.
	Timeout time.Duration `yaml:"timeout" default:"5s" min:"100ms" max:"1m"`
	// CacheTime is how long an answer is used again. 0: never. Default: 10 s.
	CacheTime time.Duration `yaml:"cache_time" default:"10s" min:"0" max:"1h"`
	// CacheMissTime is how long "no such user" is used again. 0: never. Default: 1 s.
	CacheMissTime time.Duration `yaml:"cache_miss_time" default:"1s" min:"0" max:"1h"`
	// CacheSize bounds the answers kept. Default: 10000.
	CacheSize int `yaml:"cache_size" default:"10000" min:"1" max:"1000000"`
}

// Throttle slows an address down that fails to log in: the answer to its n-th
// failure in a row comes after Delay * 2^(n-1), at most MaxDelay.
type Throttle struct {
	// Delay is the wait after the first failure. 0: no throttle. Default: 100 ms.
	Delay time.Duration `yaml:"delay" default:"100ms" min:"0" max:"1m"`
	// MaxDelay is the longest wait. Default: 10 s.
	MaxDelay time.Duration `yaml:"max_delay" default:"10s" min:"0" max:"5m"`
	// ForgetAfter is the time without a failure after which an address starts
	// afresh. Default: 10 min.
	ForgetAfter time.Duration `yaml:"forget_after" default:"10m" min:"1s" max:"1d"`
	// MaxAddresses bounds the addresses remembered. Default: 10000.
	MaxAddresses int `yaml:"max_addresses" default:"10000" min:"1" max:"1000000"`
}
