package config

import (
	"errors"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Size
		out  string
		err  error
	}{
		{"0", 0, "0", nil},
		{"0B", 0, "0", nil},
		{"1B", 1, "1B", nil},
		{"64kB", 64 << 10, "64KiB", nil},
		{"64KB", 64 << 10, "64KiB", nil},
		{"64MB", 64 << 20, "64MiB", nil},
		{"64MiB", 64 << 20, "64MiB", nil},
		{"64 MB", 64 << 20, "64MiB", nil},
		{"1GiB", 1 << 30, "1GiB", nil},
		{"1024gb", 1 << 40, "1TiB", nil},
		{"8388607TB", 8388607 << 40, "8388607TiB", nil},
		{"1536kB", 1536 << 10, "1536KiB", nil},
		{"8388608TB", 0, "", errTooBig},
		{"99999999999999999999B", 0, "", errTooBig},
		{"5", 0, "", errSize},
		{"", 0, "", errSize},
		{"MB", 0, "", errSize},
		{"-1MB", 0, "", errSize},
		{"1.5GB", 0, "", errSize},
		{"1M", 0, "", errSize},
		{"1 MB ", 0, "", errSize},
	} {
		got, err := parseSize(c.in)
		if got != c.want || !errors.Is(err, c.err) || err == nil && got.String() != c.out {
			t.Errorf("%q: %d (%s), %v; want %d (%s), %v", c.in, got, got, err, c.want, c.out, c.err)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, c := range []struct {
		in   string
		want time.Duration
		out  string
		err  error
	}{
		{"0", 0, "0", nil},
		{"0s", 0, "0", nil},
		{"1s", time.Second, "1s", nil},
		{"500ms", time.Second / 2, "500ms", nil},
		{"1.5s", 3 * time.Second / 2, "1.5s", nil},
		{"90s", 90 * time.Second, "1m30s", nil},
		{"10m", 10 * time.Minute, "10m", nil},
		{"1h", time.Hour, "1h", nil},
		{"1h0m5s", time.Hour + 5*time.Second, "1h0m5s", nil},
		{"20h10m", 20*time.Hour + 10*time.Minute, "20h10m", nil},
		{"24h", day, "1d", nil},
		{"7d", 7 * day, "7d", nil},
		{"-1s", -time.Second, "-1s", nil},
		{"999999d", 0, "", errTooBig},
		{"5", 0, "", errDuration},
		{"", 0, "", errDuration},
		{"d", 0, "", errDuration},
		{"1d12h", 0, "", errDuration},
		{"5 s", 0, "", errDuration},
		{"5min", 0, "", errDuration},
		{"9999999h", 0, "", errDuration},
	} {
		got, err := parseDuration(c.in)
		if got != c.want || !errors.Is(err, c.err) || err == nil && formatDuration(got) != c.out {
			t.Errorf("%q: %v (%s), %v; want %v (%s), %v", c.in, got, formatDuration(got), err, c.want, c.out, c.err)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"max_clients", "max_clients_per_user", "message_size", "tls", "mode"}
	for in, want := range map[string]string{
		"max_client": "max_clients", "maxclients": "max_clients", "MAX_CLIENTS": "max_clients", "max_cleints": "max_clients",
		"mesage_size": "message_size", "tsl": "tls", "ssl": "", "mod": "mode", "x": "", "pool_size": "", "": "",
	} {
		if got := nearest(in, words); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"ab", "ba", 1}, {"abc", "axc", 1}, {"kitten", "sitting", 3}, {"abcd", "acbd", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestExpand(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a$b$$c": "a$b$$c", "$": "$", "${PASSWORD}": "secret of the environment",
		"<${LEVEL}-${LEVEL}>": "<info-info>", "${EMPTY}x": "x", "${EMPTY:-d}": "d", "${UNSET:-}x": "x", "${UNSET:-a:-b}": "a:-b",
		"${LEVEL:-d}": "info", "$${LEVEL}": "${LEVEL}", "$${": "${", "a$${b}${LEVEL}": "a${b}info",
		"${file:files/password}": "from a file", "${file:files/password2}": "other file", "${file:files/password3}": "control file",
		"SCRAM-SHA-256$4096:x": "SCRAM-SHA-256$4096:x",
	} {
		c := mustParse(t, "users: [{name: app, password: x, server_user: '"+in+"'}]\n"+
			"databases: {shop: {shards: [{name: s0, nodes: a}]}}\n")
		if got := c.Users[0].ServerUser; got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

// TestRuleCovers pairs rules with whether the first leaves anything to the second.
func TestRuleCovers(t *testing.T) {
	rule := func(text string) Rule {
		c := mustParse(t, smallest+"listen: {unix_socket_directory: /run, tls: {certificate: files/server.crt, key: files/server.key}}\n"+
			"auth: {rules: ["+text+"]}\n")
		return c.Auth.Rules[0]
	}
	for _, c := range []struct {
		first, second string
		want          bool
	}{
		{"{method: trust}", "{method: reject}", true},
		{"{users: app, method: trust}", "{method: trust}", false},
		{"{method: trust}", "{users: app, method: trust}", true},
		{"{databases: shop, method: trust}", "{databases: shardproxy, method: trust}", false},
		{"{databases: [shop, shardproxy], method: trust}", "{databases: shardproxy, method: trust}", true},
		{"{tls: require, method: trust}", "{method: trust}", false},
		{"{tls: none, method: trust}", "{tls: none, method: trust}", true},
		{"{addresses: all, method: trust}", "{method: trust}", false}, // not the socket
		{"{addresses: all, method: trust}", "{addresses: [10.0.0.1, '::1'], method: trust}", true},
		{"{addresses: 10.0.0.0/8, method: trust}", "{addresses: [10.0.0.1, 11.0.0.1], method: trust}", false},
		{"{addresses: 10.0.0.0/16, method: trust}", "{addresses: 10.0.0.0/8, method: trust}", false},
		{"{transport: tcp, method: trust}", "{method: trust}", false},
		{"{transport: tcp, method: trust}", "{addresses: 10.0.0.1, method: trust}", true},
		{"{transport: unix, method: trust}", "{transport: unix, method: trust}", true},
		{"{transport: unix, method: trust}", "{transport: tcp, method: trust}", false},
		{"{method: trust}", "{transport: unix, method: trust}", true},
	} {
		first, second := rule(c.first), rule(c.second)
		if got := first.covers(&second); got != c.want {
			t.Errorf("%s before %s: %t", c.first, c.second, got)
		}
	}
}

func TestEndpointsMeet(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"127.0.0.1:1", "127.0.0.1:2", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"0.0.0.0:1", "127.0.0.1:1", true},
		{"0.0.0.0:1", "[::1]:1", false},
		{"[::]:1", "127.0.0.1:1", true},
		{":1", "[::1]:1", true},
		{":1", "0.0.0.0:1", true},
		{"localhost:1", "127.0.0.1:1", true},
		{"name:1", "127.0.0.1:1", false},
		{"name:1", "NAME:1", true},
		{"[::ffff:127.0.0.1]:1", "127.0.0.1:1", true},
	} {
		a, errA := parseEndpoint(c.a, -1)
		b, errB := parseEndpoint(c.b, -1)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.meets(b) != c.want || b.meets(a) != c.want {
			t.Errorf("%s and %s: %t, %t; want %t", c.a, c.b, a.meets(b), b.meets(a), c.want)
		}
	}
}

// TestPeers: with a shared port processes find each other beside their socket, unless another folder is given.
func TestPeers(t *testing.T) {
	for _, c := range []struct {
		l    Listen
		want string
	}{
		{Listen{}, ""},
		{Listen{UnixSocketDirectory: "/run/p"}, ""},
		{Listen{PeerDirectory: "/run/q"}, "/run/q"},
		{Listen{UnixSocketDirectory: "/run/p", ReusePort: true}, "/run/p/.shardproxy-peers"},
		{Listen{UnixSocketDirectory: "/run/p", PeerDirectory: "/run/q", ReusePort: true}, "/run/q"},
	} {
		if got := c.l.Peers(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.l, got, c.want)
		}
	}
}
