package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// users checks the listed users and reads their passwords.
func (v *validator) users() {
	names := map[string]string{}
	for i := range v.c.Users {
		u, path := &v.c.Users[i], v.userPath(i)
		if v.clean(path + ".name") {
			v.name(path+".name", u.Name)
			v.unique(path+".name", u.Name, names, "another user has the name, on line %d")
		}
		if u.Name == All {
			v.add(path+".name", "is the word for every user", "")
		}
		v.statementSize(u.StatementSize, path)
		v.password(path, "password", &u.Password, u.PasswordFile)
		v.password(path, "server_password", &u.ServerPassword, u.ServerPasswordFile)
		if !u.Verifier.Empty() {
			if !u.Password.Empty() || u.PasswordFile != "" {
				v.add(path+".verifier", "there is a password too", "give one of them")
			}
			if hash, err := ParseVerifier(u.Verifier.Reveal()); err != nil {
				v.add(path+".verifier", "is no verifier: "+err.Error(), "as in pg_authid.rolpassword: SCRAM-SHA-256$... or md5...")
			} else if hash.MD5 != "" && u.Name != "" {
				v.md5Warning(path)
			}
		}
		if len(u.CertificateNames) == 0 && u.Name != "" {
			u.CertificateNames = []string{u.Name}
		}
	}
}

func (v *validator) md5Warning(path string) {
	v.warn(path+".verifier", "an md5 verifier is as good as the password to whoever reads it", "use a SCRAM verifier")
}

func (v *validator) userPath(i int) string { return "users[" + strconv.Itoa(i) + "]" }

// auth checks the rule list, auth_query, the secret and the throttle.
func (v *validator) auth() {
	a := &v.c.Auth
	if len(a.Rules) == 0 && v.clean("auth.rules") {
		a.Rules = []Rule{{Databases: []string{All}, Users: []string{All}, Transport: TransportAny, TLS: RuleTLSAny, Method: MethodSCRAM}}
	}
	if len(a.Rules) > maxRules {
		v.add("auth.rules", fmt.Sprintf("are more than %d", maxRules), "")
		return
	}
	for i := range a.Rules {
		path := "auth.rules[" + strconv.Itoa(i) + "]"
		v.ruleNames(&a.Rules[i], path)
		v.ruleTransport(&a.Rules[i], path)
		for j := range i {
			if v.clean(path) && v.clean("auth.rules["+strconv.Itoa(j)+"]") && a.Rules[j].covers(&a.Rules[i]) {
				v.add(path, fmt.Sprintf("can never match: the rule on line %d matches all it does", v.at("auth.rules["+strconv.Itoa(j)+"]").line), "the first rule that matches decides")
				break
			}
		}
	}
	if q := a.AuthQuery; q != nil {
		v.password("auth.auth_query", "password", &q.Password, q.PasswordFile)
		v.name("auth.auth_query.user", q.User)
		if q.Query == "" {
			v.add("auth.auth_query.query", "is empty", "leave the key out for its default")
		}
		if q.Database != "" {
			v.databaseReference("auth.auth_query.database", q.Database)
		}
	}
	v.key(a)
	if t := a.Throttle; t.Delay > 0 && t.MaxDelay < t.Delay {
		v.add("auth.throttle.max_delay", "is less than auth.throttle.delay", "")
	}
	v.references("admin.admin_users", v.c.Admin.AdminUsers, v.userReference)
	v.references("admin.monitor_users", v.c.Admin.MonitorUsers, v.userReference)
	v.adminListener()
}

// references checks each name of a list.
func (v *validator) references(path string, names []string, check func(path, name string)) {
	for i, n := range names {
		check(v.listPath(path, i), n)
	}
}

// databaseReference reports the name of no database.
func (v *validator) databaseReference(path, name string) {
	if v.c.Database(name) != nil || !v.clean("databases") {
		return
	}
	var known []string
	for _, db := range v.c.Databases {
		known = append(known, db.Name)
	}
	v.add(path, fmt.Sprintf("there is no database %q", name), didYouMean(name, known))
}

// userReference reports the name of no user; with auth_query nobody can tell.
func (v *validator) userReference(path, name string) {
	if v.c.User(name) != nil || v.c.Auth.AuthQuery != nil || !v.clean("users") || !v.clean("auth.auth_query") {
		return
	}
	var known []string
	for _, u := range v.c.Users {
		known = append(known, u.Name)
	}
	v.add(path, fmt.Sprintf("there is no user %q", name), didYouMean(name, known))
}

// ruleNames checks the databases and users of a rule.
func (v *validator) ruleNames(r *Rule, path string) {
	for _, list := range []struct {
		key   string
		names []string
		check func(path, name string)
	}{
		{".databases", r.Databases, v.databaseReference}, {".users", r.Users, v.userReference},
	} {
		if len(list.names) == 0 {
			v.add(path+list.key, "names nothing", "leave the key out for all")
		}
		v.references(path+list.key, list.names, func(at, name string) {
			console := list.key == ".databases" && (name == ConsoleDatabase || name == ConsoleAlias)
			if name != All && !console {
				list.check(at, name)
			}
		})
	}
}

// ruleTransport checks that connections can be what the rule says.
func (v *validator) ruleTransport(r *Rule, path string) {
	encrypts := v.c.Listen.TLS != nil && v.c.Listen.TLS.Mode != TLSDisable
	unix := r.Transport == TransportUnix
	switch {
	case unix && len(r.Addresses) > 0:
		v.add(path+".addresses", "a client on the Unix-domain socket has no address", "")
	case unix && r.TLS == RuleTLSRequire:
		v.add(path+".tls", "the Unix-domain socket knows no TLS", "")
	case unix && v.c.Listen.UnixSocketDirectory == "":
		v.add(path+".transport", "there is no Unix-domain socket", "set listen.unix_socket_directory")
	case r.TLS == RuleTLSRequire && !encrypts:
		v.add(path+".tls", "no client can encrypt", "set listen.tls")
	case r.Method == MethodCert && (unix || r.TLS == RuleTLSNone):
		v.add(path+".method", "cert needs TLS", "")
	case r.Method == MethodCert && (!encrypts || v.c.Listen.TLS.ClientCA == ""):
		v.add(path+".method", "cert needs listen.tls with a client_ca", "")
	case r.Method == MethodPassword && !unix && r.TLS != RuleTLSRequire && !v.c.Auth.AllowCleartext:
		v.add(path+".method", "password would let passwords travel in the clear",
			"set tls: require in the rule, or auth.allow_cleartext: true")
	}
}

// covers reports whether r matches every client that later matches.
func (r *Rule) covers(later *Rule) bool {
	return coversNames(r.Databases, later.Databases) && coversNames(r.Users, later.Users) &&
		(r.TLS == RuleTLSAny || r.TLS == later.TLS) && r.coversTransport(later)
}

func (r *Rule) coversTransport(later *Rule) bool {
	tcp := later.Transport == TransportTCP || len(later.Addresses) > 0
	if r.Transport == TransportUnix && later.Transport != TransportUnix || r.Transport == TransportTCP && !tcp {
		return false
	}
	if len(r.Addresses) == 0 {
		return true
	}
	for _, p := range later.Addresses {
		inside := func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) }
		if !slices.ContainsFunc(r.Addresses, inside) {
			return false
		}
	}
	return len(later.Addresses) > 0
}

func coversNames(names, later []string) bool {
	if slices.Contains(names, All) {
		return true
	}
	for _, n := range later {
		if !slices.Contains(names, n) {
			return false
		}
	}
	return true
}

// logins checks that every listed user can log in to the proxy, and the proxy
// to the servers.
func (v *validator) logins() {
	for i := range v.c.Users {
		v.userLogin(&v.c.Users[i], v.userPath(i))
	}
	for i := range v.c.Databases {
		db := &v.c.Databases[i]
		if v.c.ControlLogin(db).User == "" && v.clean("users") && v.clean("auth.auth_query") {
			path := joinPath("databases", db.Name)
			v.add(path, "nothing says as whom the proxy logs in to the servers", "list users, or set "+path+".server.user or server.control")
		}
	}
	v.lookedUp()
}

// lookedUp warns of users found by auth_query whose password for the servers
// nobody will know: what the query returns proves a password and is none.
func (v *validator) lookedUp() {
	q := v.c.Auth.AuthQuery
	if q == nil || !v.clean("auth.rules") {
		return
	}
	without := slices.ContainsFunc(v.c.Auth.Rules, func(r Rule) bool { return r.Method != MethodReject && r.Method != MethodPassword })
	for i := range v.c.Databases {
		s := &v.c.Databases[i].Server
		if without && s.User == "" && s.TLS.Certificate == "" {
			v.warn("auth.auth_query", fmt.Sprintf("nothing gives the passwords of the users it finds for the servers of %s: they must ask for none", v.c.Databases[i].Name),
				"give server.user in the database; a SCRAM verifier cannot log in")
			return
		}
	}
}

func (v *validator) userLogin(u *User, path string) {
	if !v.clean("auth.rules") || !v.clean(path) {
		return
	}
	known, admitted := !u.Password.Empty() || !u.Verifier.Empty(), false
	verifier, _ := ParseVerifier(u.Verifier.Reveal()) // a bad one has been reported
	for _, r := range v.c.Auth.Rules {
		if r.Method == MethodReject || !slices.Contains(r.Users, All) && !slices.Contains(r.Users, u.Name) {
			continue
		}
		admitted = true
		switch r.Method {
		case MethodCert, MethodTrust:
			v.serverPassword(u, path)
			return
		case MethodSCRAM:
			if known && verifier.MD5 == "" {
				v.serverPassword(u, path)
				return
			}
		default:
			if known {
				v.serverPassword(u, path)
				return
			}
		}
	}
	switch {
	case !admitted:
		v.warn(path, "no rule of auth.rules lets the user in", "")
	case known:
		v.add(path+".verifier", "an md5 verifier cannot log in by scram-sha-256, and no rule allows anything else", "use a SCRAM verifier, or a rule with the method md5")
	case v.positions[path+".password"] != (position{}) || u.PasswordFile != "": // empty or unreadable, and reported
	case v.c.Auth.AuthQuery == nil:
		v.add(path, "has no password", "give password, password_file or verifier, or set auth.auth_query")
	}
}

// serverPassword warns of a user whose password for the servers is not known.
func (v *validator) serverPassword(u *User, path string) {
	if !u.ServerLogin().Password.Empty() {
		return
	}
	for i := range v.c.Databases {
		s := &v.c.Databases[i].Server
		if s.User == "" && s.TLS.Certificate == "" {
			v.warn(path, fmt.Sprintf("nothing gives the user's password for the servers of %s: they must ask for none", v.c.Databases[i].Name),
				"give server_password_file, or server.user in the database")
			return
		}
	}
}
