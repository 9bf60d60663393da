package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// validator finds what single values do not show, and fills in what depends
// on other settings.
type validator struct {
	*decoder
	c *Config
	// decoded is the number of problems before: one mistake is not to be
	// reported twice, as what it is and as what follows from it.
	decoded int
}

func (v *validator) validate() {
	v.listen()
	for i := range v.c.Databases {
		db := &v.c.Databases[i]
		v.database(db, joinPath("databases", db.Name))
	}
	if len(v.c.Databases) == 0 && v.positions["databases"] != (position{}) {
		v.add("databases", "there is none", "")
	}
	v.users()
	v.auth()
	v.logins()
	v.ownAddresses()
	v.tracing(&v.c.Tracing)
	v.audit(&v.c.Audit)
	v.statementSize(v.c.Limits.StatementSize, "limits")
	if l := v.c.Limits; l.ParsedStatement > l.MessageSize {
		v.add("limits.parsed_statement", "is more than limits.message_size", "no statement can be that long")
	}
}

// add reports a problem with the setting unless it, or one in it, was already
// wrong when it was read.
func (v *validator) add(path, message, hint string) {
	if !v.clean(path) {
		return
	}
	v.report(v.at(path), path, message, hint)
}

// clean reports whether everything in the setting could be read.
func (v *validator) clean(path string) bool {
	for _, p := range v.problems[:v.decoded] {
		rest, ok := strings.CutPrefix(p.Path, path)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return false
		}
	}
	return true
}

// maxNameBytes is the longest name that PostgreSQL does not cut off.
const maxNameBytes = 63

const namesCut = "PostgreSQL cuts longer names off"

// name checks a name of a database, user or shard.
func (v *validator) name(path, name string) {
	switch {
	case name == "":
		v.add(path, "is empty", "")
	case len(name) > maxNameBytes:
		v.add(path, errNameLong.Error(), namesCut)
	case strings.ContainsFunc(name, unicode.IsControl):
		v.add(path, "holds a control character", "")
	}
}

// endpoint is a host and port as the file gives them.
type endpoint struct {
	path, text string
	host       string // lower case; empty for every interface
	port       int
}

// parseEndpoint reads host:port. Without a port it takes port, unless that is
// negative. The error reads on from the value.
func parseEndpoint(text string, port int) (endpoint, error) {
	host, portText, err := net.SplitHostPort(text)
	switch {
	case err == nil:
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			return endpoint{}, fmt.Errorf("has no port number from 0 to 65535 behind its last colon")
		}
		port = int(n)
	case port < 0:
		return endpoint{}, fmt.Errorf("is not host:port")
	default:
		// An IPv6 address without brackets has no room for a port.
		host = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
		if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ":[]") {
			return endpoint{}, fmt.Errorf("is not host:port")
		}
	}
	if strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == ',' || r == '@' }) {
		return endpoint{}, fmt.Errorf("has a host name with a space, a comma or an @ in it")
	}
	return endpoint{text: text, host: strings.ToLower(host), port: port}, nil
}

// meets reports whether two listeners could not have both addresses.
func (a endpoint) meets(b endpoint) bool {
	if a.port != b.port || a.port == 0 {
		return false
	}
	x, y := a.addr(), b.addr()
	if !x.IsValid() || !y.IsValid() {
		return a.host == b.host
	}
	return x == y || x.IsUnspecified() && (x.Is6() || y.Is4()) || y.IsUnspecified() && (y.Is6() || x.Is4())
}

// addr returns the address that the host stands for without asking anybody;
// none for a name. An empty host is every interface, as :: is.
func (a endpoint) addr() netip.Addr {
	switch a.host {
	case "":
		return netip.IPv6Unspecified()
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	addr, _ := netip.ParseAddr(a.host)
	return addr.Unmap()
}

// maxSocketPath is what sockaddr_un holds on Linux, without the final zero byte.
const maxSocketPath = 107

// listen checks where the proxy listens.
func (v *validator) listen() {
	l := &v.c.Listen
	if len(l.Addresses) == 0 && l.UnixSocketDirectory == "" {
		v.add("listen.address", "nothing to listen on", "give an address or a unix_socket_directory")
	}
	port := UnixSocketPort
	for i, e := range v.endpoints() {
		if i == 0 && e.port != 0 && e.path != "admin.address" {
			port = e.port
		}
	}
	socket := filepath.Join(l.UnixSocketDirectory, ".s.PGSQL."+strconv.Itoa(port))
	if l.UnixSocketDirectory != "" && len(socket) > maxSocketPath {
		v.add("listen.unix_socket_directory", fmt.Sprintf("the socket's path %s is longer than %d bytes", socket, maxSocketPath), "")
	}
	v.reusePort()
	v.conflicts()
	v.serverTLS()
}

// reusePort checks what processes that share their addresses need.
func (v *validator) reusePort() {
	l := &v.c.Listen
	dir := l.Peers()
	if l.ReusePort && dir == "" {
		v.add("listen.reuse_port", "cancel requests that reach another process would be lost", "give a listen.peer_directory")
	}
	if dir != "" && len(dir)+1+PeerNameMax > maxSocketPath {
		at := "listen.peer_directory"
		if l.PeerDirectory == "" {
			at = "listen.unix_socket_directory"
		}
		v.add(at, fmt.Sprintf("the paths of sockets in %s are longer than %d bytes", dir, maxSocketPath), "")
	}
	for _, e := range v.endpoints() {
		if l.ReusePort && e.port == 0 && e.path != "admin.address" {
			v.add(e.path, "port 0 cannot be shared with other processes", "give a port, or take listen.reuse_port away")
		}
	}
}

// listPath returns the path of the i-th value of a list that may have been
// written as its only element.
func (v *validator) listPath(list string, i int) string {
	p := list + "[" + strconv.Itoa(i) + "]"
	if _, ok := v.positions[p]; !ok && i == 0 {
		return list
	}
	return p
}

// endpoints returns the addresses that the proxy listens on and that could be read.
func (v *validator) endpoints() []endpoint {
	var list []endpoint
	take := func(path, text string) {
		if e, err := parseEndpoint(strings.Replace(text, "*:", ":", 1), -1); err == nil {
			e.path = path
			list = append(list, e)
		}
	}
	for i, a := range v.c.Listen.Addresses {
		take(v.listPath("listen.address", i), a)
	}
	if a := v.c.Admin.Address; a != "" {
		take("admin.address", a)
	}
	return list
}

// conflicts reports addresses that cannot be read or cannot all be listened on.
func (v *validator) conflicts() {
	check := func(path string, text *string) {
		if rest, ok := strings.CutPrefix(*text, "*:"); ok {
			*text = ":" + rest
		}
		if _, err := parseEndpoint(*text, -1); err != nil {
			v.add(path, fmt.Sprintf("%q %s", *text, err), "such as 0.0.0.0:6432 or [::1]:6432")
		}
	}
	for i := range v.c.Listen.Addresses {
		check(v.listPath("listen.address", i), &v.c.Listen.Addresses[i])
	}
	if v.c.Admin.Address != "" {
		check("admin.address", &v.c.Admin.Address)
	}
	list := v.endpoints()
	for i, e := range list {
		for _, earlier := range list[:i] {
			if e.meets(earlier) {
				// The later one may be a default, which stands nowhere.
				at := e.path
				if _, ok := v.positions[at]; !ok {
					at = earlier.path
				}
				v.add(at, fmt.Sprintf("%s of %s and %s of %s cannot both be listened on", earlier.text, earlier.path, e.text, e.path), "")
			}
		}
	}
}

// ownAddresses reports nodes that are the proxy itself.
func (v *validator) ownAddresses() {
	own := v.endpoints()
	v.eachNode(func(path string, node endpoint) {
		for _, e := range own {
			a, n := e.addr(), node.addr()
			loop := a.IsUnspecified() && n.IsLoopback() && e.port == node.port
			if node.port != 0 && (loop || a.IsValid() && a == n && e.port == node.port) {
				v.add(path, fmt.Sprintf("%s is the proxy itself: %s listens there", node.text, e.path), "")
			}
		}
	})
}
