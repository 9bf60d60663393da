package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func importPgBouncerCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "import-pgbouncer pgbouncer.ini",
		Short: "Write the configuration that does what a pgbouncer.ini says",
		Long: "Import-pgbouncer reads PgBouncer's configuration, and the auth_file, auth_hba_file and other files that it names, and prints a configuration\n" +
			"of shardproxy, or with -o writes it into a file that only its owner can read: passwords stand in it. What could not be carried over is told on\n" +
			"standard error and stands as comments at its beginning.\n" +
			"Exit code 0: all was carried over, 1: all but what is told, 2: there is no usable configuration.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, said, err := importPgBouncer(args[0])
			if err != nil {
				return &exitError{exitProblems, err.Error()}
			}
			if out == "" {
				_, err = io.WriteString(cmd.OutOrStdout(), text)
			} else {
				err = os.WriteFile(out, []byte(text), 0o600)
			}
			if err != nil {
				return &exitError{exitProblems, err.Error()}
			}
			for _, s := range said {
				fmt.Fprintln(cmd.ErrOrStderr(), s)
			}
			if len(said) > 0 {
				return &exitError{code: exitBlocked}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file to write; standard output when not given")
	return c
}

// pgbouncerImport turns one configuration into the other.
type pgbouncerImport struct {
	file *pgbouncerFile
	dir  string
	out  yamlMap
	said []string
	used map[string]bool // settings that were looked at
}

// importPgBouncer returns the configuration, and what could not be carried over.
func importPgBouncer(path string) (text string, said []string, err error) {
	file, err := readPgBouncer(path)
	if err != nil {
		return "", nil, err
	}
	p := &pgbouncerImport{file: file, dir: filepath.Dir(path), used: map[string]bool{}}
	p.listen()
	p.admin()
	if err := p.usersAndRules(); err != nil {
		return "", nil, err
	}
	p.databases()
	p.limits()
	p.rest()
	if len(file.databases) == 0 {
		return "", nil, fmt.Errorf("%s: no database is named", path)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Made of %s by shardproxy import-pgbouncer. shardproxy check says what is wrong with it.\n", filepath.Base(path))
	for _, s := range p.said {
		b.WriteString("# NOT CARRIED OVER: " + strings.ReplaceAll(s, "\n", " ") + "\n")
	}
	p.out.write(&b, "")
	return b.String(), p.said, nil
}

func (p *pgbouncerImport) say(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(p.said, s) {
		p.said = append(p.said, s)
	}
}

// setting returns a setting of [pgbouncer].
func (p *pgbouncerImport) setting(name string) string {
	p.used[name] = true
	return p.file.settings[name]
}

// path is a file that the configuration names: from where PgBouncer is started, which is taken to be the file's folder.
func (p *pgbouncerImport) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.dir, name)
}

// seconds reads a time; PgBouncer counts seconds, with or without a fraction.
func (p *pgbouncerImport) seconds(what, value string) (time.Duration, bool) {
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || n < 0 {
		p.say("%s = %s: it is no number of seconds", what, value)
		return 0, false
	}
	return time.Duration(n * float64(time.Second)), true
}

// number sets a number of the target, when the source has one.
func (p *pgbouncerImport) number(to *yamlMap, key, what, value string) {
	if value == "" {
		return
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		p.say("%s = %s: it is no number", what, value)
		return
	}
	to.set(key, n)
}

// duration sets a time of the target, at least least, when the source has one.
func (p *pgbouncerImport) duration(to *yamlMap, key, what, value string, least time.Duration) {
	if value == "" {
		return
	}
	if d, ok := p.seconds(what, value); ok {
		if d < least {
			p.say("%s = %s: the least is %s here, which is taken", what, value, least)
			d = least
		}
		to.set(key, d)
	}
}

func (p *pgbouncerImport) listen() {
	listen := p.out.sub("listen")
	port := cmp.Or(p.setting("listen_port"), "6432")
	var addresses []string
	for a := range strings.SplitSeq(p.setting("listen_addr"), ",") {
		switch a = strings.TrimSpace(a); {
		case a == "":
		case a == "*":
			addresses = append(addresses, "*:"+port)
		case strings.Contains(a, ":"):
			addresses = append(addresses, "["+a+"]:"+port)
		default:
			addresses = append(addresses, a+":"+port)
		}
	}
	listen.set("address", addresses)
	if addresses == nil {
		listen.set("address", []string{})
	}
	listen.set("unix_socket_directory", cmp.Or(p.setting("unix_socket_dir"), "/tmp"))
	if mode := p.setting("unix_socket_mode"); mode != "" {
		listen.set("unix_socket_mode", mode)
	}
	if on := p.setting("so_reuseport"); on != "" && on != "0" {
		listen.set("reuse_port", true)
	}
	p.clientTLS(listen)
}

func (p *pgbouncerImport) clientTLS(listen *yamlMap) {
	mode := cmp.Or(p.setting("client_tls_sslmode"), "disable")
	ca, key, certificate := p.setting("client_tls_ca_file"), p.setting("client_tls_key_file"), p.setting("client_tls_cert_file")
	p.protocols("client_tls_protocols", listen)
	if mode == "disable" {
		return
	}
	tls := listen.sub("tls")
	tls.set("mode", map[string]string{"allow": "allow", "prefer": "allow", "require": "require", "verify-ca": "require", "verify-full": "require"}[mode])
	tls.set("certificate", p.path(certificate))
	tls.set("key", p.path(key))
	if ca != "" {
		tls.set("client_ca", p.path(ca))
	}
	if strings.HasPrefix(mode, "verify") {
		p.say("client_tls_sslmode = %s: every client must have a certificate there; here a rule with the method cert asks for one, and the others are not asked", mode)
	}
}

func (p *pgbouncerImport) protocols(name string, listen *yamlMap) {
	switch v := p.setting(name); v {
	case "", "secure", "default", "all", "tlsv1.2,tlsv1.3", "tlsv1.2, tlsv1.3":
	case "tlsv1.3":
		listen.sub("tls").set("min_version", "1.3")
	default:
		p.say("%s = %s: TLS 1.2 and 1.3 are spoken", name, v)
	}
}

// names splits a list of names.
func pgbouncerNames(list string) (names []string) {
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.Trim(strings.TrimSpace(name), `"`); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func (p *pgbouncerImport) admin() {
	for _, of := range [][2]string{{"admin_users", "admin_users"}, {"stats_users", "monitor_users"}} {
		if names := pgbouncerNames(p.setting(of[0])); names != nil {
			p.out.sub("admin").set(of[1], names)
		}
	}
}

// usersAndRules carries over who may log in, and how.
func (p *pgbouncerImport) usersAndRules() error {
	known := map[string]*yamlMap{}
	var order []string
	user := func(name string) *yamlMap {
		if known[name] == nil {
			known[name] = &yamlMap{{"name", name}}
			order = append(order, name)
		}
		return known[name]
	}
	if list := p.setting("auth_file"); list != "" {
		all, err := readUserList(p.path(list))
		if err != nil {
			return err
		}
		verifiers := 0
		for _, u := range all {
			md5 := len(u.secret) == 35 && strings.HasPrefix(u.secret, "md5")
			if md5 && p.file.settings["auth_type"] == "scram-sha-256" {
				p.say("user %s of %s has an md5 verifier, by which nobody can log in with auth_type = scram-sha-256", u.name, list)
				continue
			}
			if md5 || strings.HasPrefix(u.secret, "SCRAM-SHA-256$") {
				user(u.name).set("verifier", u.secret)
				verifiers++
			} else {
				user(u.name).set("password", u.secret)
			}
		}
		if verifiers > 0 && p.forced() < len(p.file.databases) {
			p.say("users of %s with a verifier and no password (%d): the proxy can check who they are, and cannot log in to servers for them. Give them server_password_file, or the databases server.user", list, verifiers)
		}
	}
	for i := range p.file.users {
		p.user(user(p.file.users[i].name), &p.file.users[i])
	}
	for _, name := range append(pgbouncerNames(p.setting("admin_users")), pgbouncerNames(p.setting("stats_users"))...) {
		user(name)
	}
	rules, err := p.rules()
	if err != nil {
		return err
	}
	for _, r := range rules {
		for _, name := range r.texts("users") {
			user(name)
		}
	}
	if limit := p.setting("max_user_connections"); limit != "" && limit != "0" {
		for _, name := range order {
			p.number(known[name], "max_servers", "max_user_connections", limit)
		}
	}
	if len(order) > 0 {
		var all []*yamlMap
		for _, name := range order {
			all = append(all, known[name])
		}
		p.out.set("users", all)
	}
	p.auth(rules)
	return nil
}

// forced counts databases that name their login on the server.
func (p *pgbouncerImport) forced() (n int) {
	for i := range p.file.databases {
		if p.file.databases[i].get("user") != "" {
			n++
		}
	}
	return n
}

// user carries a line of [users] over.
func (p *pgbouncerImport) user(to *yamlMap, e *pgbouncerEntry) {
	for _, k := range e.keywords {
		what := "user " + e.name + ": " + k.name
		switch k.name {
		case "pool_mode":
			to.set("pool_mode", k.value)
		case "pool_size":
			p.number(to, "pool_size", what, k.value)
		case "max_user_connections":
			p.number(to, "max_servers", what, k.value)
		case "max_user_client_connections":
			p.number(to, "max_clients", what, k.value)
		case "query_timeout":
			p.duration(to.sub("timeouts"), "query", what, k.value, 0)
		case "idle_transaction_timeout":
			p.duration(to.sub("timeouts"), "idle_in_transaction", what, k.value, 0)
		case "client_idle_timeout":
			p.duration(to.sub("timeouts"), "client_idle", what, k.value, 0)
		default:
			p.say("%s = %s", what, k.value)
		}
	}
}

// rules returns how clients log in, nil for the default.
func (p *pgbouncerImport) rules() ([]*yamlMap, error) {
	kind := cmp.Or(p.setting("auth_type"), "md5")
	method := map[string]string{"trust": "trust", "plain": "password", "md5": "md5", "scram-sha-256": "scram-sha-256", "cert": "cert"}[kind]
	file := p.setting("auth_hba_file")
	switch {
	case kind == "hba":
		rules, said, err := readHBA(p.path(file))
		p.said = append(p.said, said...)
		return slices.DeleteFunc(rules, p.matchesNobody), err
	case method == "":
		p.say("auth_type = %s: scram-sha-256 is taken; see auth.rules", kind)
		return nil, nil
	}
	return []*yamlMap{{{"method", method}}}, nil
}

// matchesNobody reports whether a rule is about databases that there are not, or about encryption where there is none.
func (p *pgbouncerImport) matchesNobody(r *yamlMap) bool {
	if tls := r.texts("tls"); len(tls) == 1 && tls[0] == "require" && cmp.Or(p.file.settings["client_tls_sslmode"], "disable") == "disable" {
		return true
	}
	names := r.texts("databases")
	known := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return name != "pgbouncer" && !slices.ContainsFunc(p.file.databases, func(e pgbouncerEntry) bool { return e.name == name })
	})
	if len(known) > 0 {
		r.set("databases", known)
	}
	return len(names) > 0 && len(known) == 0
}

// auth writes how clients log in, and where users are found that the file does not have.
func (p *pgbouncerImport) auth(rules []*yamlMap) {
	auth := p.out.sub("auth")
	if rules != nil {
		auth.set("rules", rules)
	}
	if p.file.settings["auth_type"] == "plain" {
		auth.set("allow_cleartext", true)
	}
	query, asks := p.setting("auth_query"), p.setting("auth_user")
	if asks == "" {
		for i := range p.file.databases {
			asks = cmp.Or(asks, p.file.databases[i].get("auth_user"))
		}
	}
	if asks != "" {
		q := auth.sub("auth_query")
		q.set("user", asks)
		if query != "" {
			q.set("query", query)
		}
		if db := p.setting("auth_dbname"); db != "" {
			q.set("database", db)
		}
		p.say("auth_user = %s: give auth.auth_query the password_file of this role, unless the servers trust it. Users that are found so log in to the servers by server.user of their database", asks)
	} else if query != "" {
		p.say("auth_query: there is no auth_user")
	}
	if len(*auth) == 0 {
		p.out = slices.DeleteFunc(p.out, func(e yamlEntry) bool { return e.key == "auth" })
	}
}

func (p *pgbouncerImport) databases() {
	databases := p.out.sub("databases")
	for i := range p.file.databases {
		e := &p.file.databases[i]
		if e.name == "*" {
			p.say("database *: databases that are not named are not served; name them")
			continue
		}
		p.database(databases.sub(e.name), e)
	}
}

// database carries a line of [databases] over, and what [pgbouncer] says for all.
func (p *pgbouncerImport) database(to *yamlMap, e *pgbouncerEntry) {
	port := cmp.Or(e.get("port"), "5432")
	host := cmp.Or(e.get("host"), "/tmp")
	var nodes []string
	for h := range strings.SplitSeq(host, ",") {
		if h = strings.TrimSpace(h); strings.Contains(h, ":") && !strings.HasPrefix(h, "/") {
			h = "[" + h + "]"
		}
		nodes = append(nodes, h+":"+port)
	}
	to.set("shards", []*yamlMap{{{"name", "s0"}, {"nodes", nodes}}})
	server, pool := to.sub("server"), to.sub("pool")
	if name := e.get("dbname"); name != "" && name != e.name {
		server.set("database", name)
	}
	p.serverTLS(server)
	p.duration(server, "connect_timeout", "server_connect_timeout", p.setting("server_connect_timeout"), 100*time.Millisecond)
	pool.set("mode", cmp.Or(e.get("pool_mode"), p.setting("pool_mode"), "session"))
	of := func(own, general string) string { return cmp.Or(e.get(own), p.setting(general)) }
	p.number(pool, "size", "pool_size", of("pool_size", "default_pool_size"))
	p.number(pool, "min", "min_pool_size", of("min_pool_size", "min_pool_size"))
	p.number(pool, "reserve", "reserve_pool", cmp.Or(e.get("reserve_pool_size"), of("reserve_pool", "reserve_pool_size")))
	p.duration(pool, "reserve_after", "reserve_pool_timeout", p.setting("reserve_pool_timeout"), 0)
	p.duration(pool, "idle_timeout", "server_idle_timeout", p.setting("server_idle_timeout"), 0)
	p.duration(pool, "life_time", "server_lifetime", of("server_lifetime", "server_lifetime"), time.Second)
	p.duration(pool, "wait_timeout", "query_wait_timeout", p.setting("query_wait_timeout"), 0)
	p.number(pool, "max_servers", "max_db_connections", of("max_db_connections", "max_db_connections"))
	p.number(pool, "max_clients", "max_db_client_connections", of("max_db_client_connections", "max_db_client_connections"))
	if n := p.setting("max_prepared_statements"); n == "0" {
		p.say("max_prepared_statements = 0: prepared statements are always followed")
	} else {
		p.number(pool, "prepared_statements", "max_prepared_statements", n)
	}
	// One server behind each name, as there: which one reads go to was not the pooler's to say.
	to.sub("reads").set("split", false)
	for _, k := range e.keywords {
		switch k.name {
		case "host", "port", "dbname", "pool_mode", "pool_size", "min_pool_size", "reserve_pool", "reserve_pool_size", "server_lifetime", "max_db_connections", "max_db_client_connections", "auth_user":
		case "user", "password":
			server.set(k.name, k.value)
		default:
			p.say("database %s: %s = %s", e.name, k.name, k.value)
		}
	}
	if len(nodes) > 1 {
		p.say("database %s has %d hosts: there they are tried in turn, here one of them must be the primary, and the others its replicas", e.name, len(nodes))
	}
}

func (p *pgbouncerImport) serverTLS(server *yamlMap) {
	tls := server.sub("tls")
	tls.set("mode", cmp.Or(p.setting("server_tls_sslmode"), "prefer"))
	for from, to := range map[string]string{"server_tls_ca_file": "ca", "server_tls_cert_file": "certificate", "server_tls_key_file": "key"} {
		if v := p.setting(from); v != "" {
			tls.set(to, p.path(v))
		}
	}
	slices.SortFunc(*tls, func(a, b yamlEntry) int { return cmp.Compare(a.key, b.key) })
}

func (p *pgbouncerImport) limits() {
	limits, timeouts := &yamlMap{}, &yamlMap{}
	p.number(limits, "max_clients", "max_client_conn", p.setting("max_client_conn"))
	if n := p.setting("max_user_client_connections"); n != "0" {
		p.number(limits, "max_clients_per_user", "max_user_client_connections", n)
	}
	p.duration(timeouts, "login", "client_login_timeout", p.setting("client_login_timeout"), time.Second)
	p.duration(timeouts, "query", "query_timeout", p.setting("query_timeout"), 0)
	p.duration(timeouts, "idle_in_transaction", "idle_transaction_timeout", p.setting("idle_transaction_timeout"), 0)
	p.duration(timeouts, "client_idle", "client_idle_timeout", p.setting("client_idle_timeout"), 0)
	if len(*limits) > 0 {
		p.out.set("limits", limits)
	}
	if len(*timeouts) > 0 {
		p.out.set("timeouts", timeouts)
	}
	if p.setting("verbose") > "0" {
		p.out.sub("log").set("level", "debug")
	}
}

// ofTheProcess are settings that are somebody else's business here, or have no need: the service manager's, the log's, the socket's.
var ofTheProcess = []string{
	"logfile", "syslog", "syslog_ident", "syslog_facility", "pidfile", "user", "log_connections", "log_disconnections", "log_pooler_errors", "log_stats", "stats_period",
	"tcp_defer_accept", "tcp_socket_buffer", "tcp_keepalive", "tcp_keepcnt", "tcp_keepidle", "tcp_keepintvl", "tcp_user_timeout", "listen_backlog", "pkt_buf", "sbuf_loopcnt", "server_fast_close",
	"dns_max_ttl", "dns_nxdomain_ttl", "dns_zone_check_period", "resolv_conf", "job_name", "conffile", "service_name", "unix_socket_group", "server_check_delay", "server_check_query", "server_reset_query",
	"server_reset_query_always", "server_round_robin", "server_login_retry", "disable_pqexec", "track_extra_parameters", "ignore_startup_parameters", "client_tls_ciphers", "server_tls_ciphers", "server_tls_protocols",
	"client_tls_dheparams", "client_tls_ecdhcurve", "suspend_timeout", "cancel_wait_timeout", "max_packet_size", "query_wait_notify", "shutdown_wait_timeout",
}

// rest says which settings were not looked at.
func (p *pgbouncerImport) rest() {
	if p.file.peers > 0 {
		p.say("[peers]: %d peers; processes on one machine that have one listen.peer_directory pass cancel requests on to each other without being named, those of other machines do not", p.file.peers)
	}
	for _, s := range p.file.unknown {
		p.say("[%s]", s)
	}
	var names []string
	for name := range p.file.settings {
		if !p.used[name] && !slices.Contains(ofTheProcess, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		p.say("%s = %s", name, p.file.settings[name])
	}
}
