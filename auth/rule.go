package auth

import (
	"net/netip"
	"slices"

	"shardproxy/config"
)

// origin is where a client comes from and what it asks for.
type origin struct {
	database, user string
	addr           netip.Addr // without zone, never IPv4-in-IPv6; invalid for Unix-domain sockets
	encrypted      bool
}

// plainAddr strips what would hide an address from a prefix: Prefix.Contains
// is false for every zoned address, and a dual-stack listener reports IPv4
// clients as ::ffff:a.b.c.d.
func plainAddr(ap netip.AddrPort) netip.Addr { return ap.Addr().Unmap().WithZone("") }

// match returns the first rule that fits, nil when none does. There is no
// fall-through to a later rule when the exchange of the first fails.
func match(rules []config.Rule, o origin) *config.Rule {
	for i := range rules {
		r := &rules[i]
		if o.fitsTLS(r.TLS) && o.fitsTransport(r.Transport) && o.fitsAddresses(r.Addresses) &&
			names(r.Users, o.user) && names(r.Databases, o.database) {
			return r
		}
	}
	return nil
}

func (o origin) fitsTLS(want string) bool {
	switch want {
	case config.RuleTLSRequire:
		return o.encrypted
	case config.RuleTLSNone:
		return !o.encrypted
	}
	return true
}

func (o origin) fitsTransport(want string) bool {
	switch want {
	case config.TransportTCP:
		return o.addr.IsValid()
	case config.TransportUnix:
		return !o.addr.IsValid()
	}
	return true
}

// fitsAddresses is true without addresses; a client of a Unix-domain socket
// has no address that others could contain.
func (o origin) fitsAddresses(networks []netip.Prefix) bool {
	return len(networks) == 0 || slices.ContainsFunc(networks, func(p netip.Prefix) bool {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Contains(o.addr)
	})
}

// names reports whether a rule's list speaks of the name.
func names(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, config.All) || slices.Contains(list, name)
}
