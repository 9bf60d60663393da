package config

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

const postgresPort = 5432

// database checks one database.
func (v *validator) database(db *Database, path string) {
	v.name(path, db.Name)
	if db.Name == ConsoleDatabase || db.Name == ConsoleAlias {
		v.add(path, "is the name of the admin console", "choose another; server.database may still say "+db.Name)
	}
	if db.Name == All {
		v.add(path, "is the word for every database", "choose another; server.database may still say "+db.Name)
	}
	v.shards(db, path+".shards")
	v.server(db, path+".server")
	v.sharding(db, path)
	v.pool(&db.Pool, path+".pool")
	v.statementSize(db.StatementSize, path)
	v.cache(&db.Cache, path+".cache")
	for i, f := range db.Reads.ReadOnlyFunctions {
		if !qualifiedName.MatchString(f) {
			v.add(v.listPath(path+".reads.read_only_functions", i), fmt.Sprintf("%q is not a function's name", f),
				"the name alone or schema.name, without arguments")
		}
	}
}

// shards checks the shards and their nodes, and completes the nodes' ports.
func (v *validator) shards(db *Database, path string) {
	if len(db.Shards) == 0 {
		if v.positions[path] != (position{}) {
			v.add(path, "there is none", "")
		}
		return
	}
	names := map[string]string{}
	nodes := map[string]string{}
	for i := range db.Shards {
		s, at := &db.Shards[i], path+"["+strconv.Itoa(i)+"]"
		if v.clean(at + ".name") {
			v.name(at+".name", s.Name)
			v.unique(at+".name", s.Name, names, "another shard has the name, on line %d")
		}
		if len(s.Nodes) == 0 {
			v.add(at+".nodes", "there is none", "")
		}
		for j := range s.Nodes {
			p := v.listPath(at+".nodes", j)
			full, err := completeNode(s.Nodes[j])
			if err != nil {
				v.add(p, fmt.Sprintf("%q %s", s.Nodes[j], err), "such as 10.0.0.1:5432")
				continue
			}
			s.Nodes[j] = full
			v.unique(p, full, nodes, "the node is listed twice, first on line %d")
		}
	}
}

// unique reports a value that another setting has too; format takes its line.
func (v *validator) unique(path, value string, seen map[string]string, format string) {
	if first, ok := seen[value]; ok {
		v.add(path, fmt.Sprintf(format, v.at(first).line), "")
		return
	}
	seen[value] = path
}

// completeNode returns the node's address with its port.
func completeNode(node string) (string, error) {
	if filepath.IsAbs(node) {
		dir, port, ok := strings.Cut(node, ":")
		if !ok {
			port = strconv.Itoa(postgresPort)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", fmt.Errorf("has no port number from 1 to 65535 behind its colon")
		}
		return dir + ":" + port, nil
	}
	e, err := parseEndpoint(node, postgresPort)
	switch {
	case err != nil:
		return "", err
	case e.host == "":
		return "", fmt.Errorf("has no host")
	case e.port == 0:
		return "", fmt.Errorf("has port 0")
	case e.addr().IsUnspecified():
		return "", fmt.Errorf("is no address to connect to")
	}
	return net.JoinHostPort(e.host, strconv.Itoa(e.port)), nil
}

// eachNode calls f for every node that has a host and port.
func (v *validator) eachNode(f func(path string, node endpoint)) {
	for _, db := range v.c.Databases {
		for i, s := range db.Shards {
			list := joinPath("databases", db.Name) + ".shards[" + strconv.Itoa(i) + "].nodes"
			for j, n := range s.Nodes {
				if e, err := parseEndpoint(n, -1); err == nil && !filepath.IsAbs(n) {
					f(v.listPath(list, j), e)
				}
			}
		}
	}
}

// server checks how the nodes are connected to.
func (v *validator) server(db *Database, path string) {
	s := &db.Server
	if s.Database == "" {
		s.Database = db.Name
	} else {
		v.name(path+".database", s.Database)
	}
	v.login(path, s.User, &s.Password, s.PasswordFile)
	v.login(path+".control", s.Control.User, &s.Control.Password, s.Control.PasswordFile)
	v.clientTLS(&s.TLS, path+".tls")
}

// login reads a login's password and checks that it is anybody's.
func (v *validator) login(path, user string, password *Secret, file string) {
	v.password(path, "password", password, file)
	if user == "" && !password.Empty() {
		v.add(path, "there is a password and no user", "")
	}
}

// pool checks settings of a pool against one another.
func (v *validator) pool(p *Pool, path string) {
	if p.Min > p.Size {
		v.add(path+".min", fmt.Sprintf("is more than the pool's size, %d", p.Size), "")
	}
	if p.Reserve > 0 && p.WaitTimeout > 0 && p.ReserveAfter >= p.WaitTimeout {
		v.add(path+".reserve_after", "is not before wait_timeout, so the reserve is never opened", "")
	}
	if p.MaxServers > 0 && p.MaxServers < p.Min {
		v.add(path+".max_servers", fmt.Sprintf("is less than the pool's min, %d", p.Min), "")
	}
}
