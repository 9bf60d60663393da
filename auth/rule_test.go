package auth

import (
	"net/netip"
	"testing"

	"shardproxy/config"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestRules(t *testing.T) {
	rules := []config.Rule{
		0: {Transport: config.TransportUnix, Users: []string{"root"}, Method: config.MethodTrust},
		1: {Users: []string{"mallory"}, Databases: []string{"all"}, Method: config.MethodReject},
		2: {Addresses: prefixes("10.0.0.0/8"), TLS: config.RuleTLSNone, Method: config.MethodMD5},
		3: {Addresses: prefixes("10.0.0.0/8", "fd00::/8"), TLS: config.RuleTLSRequire, Method: config.MethodCert},
		4: {Addresses: prefixes("::ffff:192.0.2.0/120"), Method: config.MethodPassword},
		5: {Addresses: prefixes("0.0.0.0/0", "::/0"), Databases: []string{"shop", "stock"}, Users: []string{"app"}, Method: config.MethodSCRAM},
		6: {Transport: config.TransportTCP, Databases: []string{"tcponly"}, Users: []string{config.All}, TLS: config.RuleTLSAny, Method: config.MethodSCRAM},
		7: {Databases: []string{"open"}, Method: config.MethodTrust},
	}
	const none = -1
	for _, c := range []struct {
		name, addr, user, database string
		tls                        bool
		want                       int
	}{
		{"unix user", "", "root", "x", false, 0},
		{"unix rule is not for TCP", "127.0.0.1:1", "root", "x", false, none},
		{"order decides", "10.1.1.1:1", "mallory", "shop", false, 1},
		{"unencrypted", "10.1.1.1:1", "app", "shop", false, 2},
		{"encrypted", "10.1.1.1:1", "app", "shop", true, 3},
		{"ipv6 encrypted", "[fd00::1]:1", "x", "x", true, 3},
		{"ipv6 unencrypted falls through", "[fd00::1]:1", "app", "shop", false, 5},
		{"ipv6 with zone", "[fe80::1%eth0]:1", "app", "shop", false, 5},
		{"ipv4 of a dual-stack listener", "[::ffff:10.1.1.1]:1", "app", "shop", false, 2},
		{"prefix written as ipv4 in ipv6", "192.0.2.7:1", "x", "x", false, 4},
		{"outside that prefix", "192.0.3.7:1", "x", "x", false, none},
		{"second database of a list", "1.2.3.4:1", "app", "stock", false, 5},
		{"other user", "1.2.3.4:1", "App", "stock", false, none},
		{"addresses exclude unix", "", "app", "stock", false, none},
		{"tcp transport", "1.2.3.4:1", "x", "tcponly", false, 6},
		{"tcp transport excludes unix", "", "x", "tcponly", false, none},
		{"no addresses means everywhere", "", "x", "open", false, 7},
		{"no addresses means everywhere, TCP", "[::1]:1", "x", "open", true, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			var ap netip.AddrPort
			if c.addr != "" {
				ap = netip.MustParseAddrPort(c.addr)
			}
			got := match(rules, origin{database: c.database, user: c.user, addr: plainAddr(ap), encrypted: c.tls})
			switch {
			case c.want == none && got != nil:
				t.Errorf("matched %+v, want none", *got)
			case c.want != none && got != &rules[c.want]:
				t.Errorf("matched %+v, want rule %d", got, c.want)
			}
		})
	}
}
