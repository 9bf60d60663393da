package main

import (
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

func TestPlainText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"failover: probe: conn closed", "probe: conn closed"},
		{"failover: connect for a probe: failed to connect to `user=watcher database=app`: \n\t10.0.0.1:5432 (db1): dial error: timeout\n",
			"connect for a probe: 10.0.0.1:5432 (db1): dial error: timeout"},
		{"failover: connect for a probe: failed to connect to `user=watcher database=app`:\n\ta: tls error: EOF\n\ta: server error: b\n\ta: server error: b",
			"connect for a probe: a: tls error: EOF; a: server error: b"},
		{`FATAL: password authentication failed for user "watcher" (SQLSTATE 28P01)`, "FATAL: password authentication failed for the control user (SQLSTATE 28P01)"},
		{`FATAL: role "watcher" does not exist`, "FATAL: the control user does not exist"},
		{"password-authentifizierung für Benutzer »x« und „watcher“", "password-authentifizierung für Benutzer »x« und the control user"},
	} {
		if got := plainText(c.text, "watcher"); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
}

// TestNodeErrorsArePlain reads what operators see of servers that cannot be
// reached or let nobody in.
func TestNodeErrorsArePlain(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	text := strings.Replace(configText, "nodes: [%NODES%]", `nodes: [%NODES%, "`+freeAddr(t)+`"]`, 1)
	text = strings.Replace(text, "control: {user: postgres}", "control: {user: watching_nobody, password: wrong}", 1)
	px := startProgram(t, cl, text)
	var words []string
	eventually(t, "both nodes have been asked", func() bool {
		words = nil
		for _, n := range px.p.state.Load().databases["app"].shards[0].monitor.Nodes() {
			if n.LastError == "" {
				return false
			}
			words = append(words, n.LastError, n.Reason)
		}
		return true
	})
	all := strings.Join(words, "|")
	for _, w := range words {
		if strings.ContainsAny(w, "\n\t") || strings.Contains(w, "watching_nobody") || strings.Contains(w, "user=") {
			t.Errorf("%q", w)
		}
	}
	for _, want := range []string{"authentication failed for the control user (SQLSTATE 28P01)", "connection refused"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in %q", want, words)
		}
	}
}
