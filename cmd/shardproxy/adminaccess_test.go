package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"shardproxy/auth"
	"shardproxy/internal/pgtest"
)

// asksAdmin asks the admin address, as a user unless that is empty.
func (px *proxied) asksAdmin(scheme, path, user, password string) int {
	px.t.Helper()
	req, err := http.NewRequestWithContext(within(px.t, 30*time.Second), http.MethodGet, scheme+"://"+px.p.http.Addr().String()+path, nil)
	if err != nil {
		px.t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	tr := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	res, err := tr.RoundTrip(req)
	if err != nil {
		px.t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// TestAdminAsksForPasswords: the users, roles, secrets and rules of the console
// are those of the admin address, also behind a reload.
func TestAdminAsksForPasswords(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{})
	text := strings.Replace(configText, "admin_users: [app], open: [probes, metrics]}", "admin_users: [app], monitor_users: [watch]}", 1)
	text = strings.Replace(text, "users:\n", "users:\n  - {name: watch, verifier: \""+auth.HashPassword("looks")+"\"}\n  - {name: other, password: else}\n", 1)
	px := startProgram(t, cl, text)
	secret := px.p.state.Load().cfg.User("app").Password.Reveal()
	for _, c := range []struct {
		path, user, password string
		want                 int
	}{
		{"/livez", "", "", 200}, {"/readyz?verbose", "", "", 200}, {"/metrics", "", "", 401}, {"/metrics?compat=pgbouncer", "", "", 401}, {"/", "", "", 401}, {"/api/v1/status", "", "", 401}, {"/api/v1/live", "", "", 401},
		{"/metrics?compat=pgbouncer", "watch", "looks", 200}, {"/metrics?compat=pgbouncer", "other", "else", 403}, {"/metrics?compat=odyssey", "watch", "looks", 400},
		{"/metrics", "watch", "looks", 200}, {"/api/v1/status", "watch", "looks", 200}, {"/", "app", secret, 200}, {"/", "other", "else", 403}, {"/debug/pprof/", "app", secret, 404},
	} {
		eventually(t, "the proxy is ready", func() bool { return px.asksAdmin("http", "/readyz", "", "") == 200 })
		if got := px.asksAdmin("http", c.path, c.user, c.password); got != c.want {
			t.Errorf("%s as %q: %d, want %d", c.path, c.user, got, c.want)
		}
	}
	for _, c := range [][2]string{{"watch", "look"}, {"nobody", "looks"}, {"app", ""}} {
		if got := px.asksAdmin("http", "/", c[0], c[1]); got != 401 {
			t.Errorf("%q: %d", c, got)
		}
	}
	if got := px.asksAdmin("http", "/", "watch", "looks"); got != 200 { // which forgives
		t.Errorf("a right password behind wrong ones: %d", got)
	}
	if log := px.logged(); !strings.Contains(log, `msg="admin login failed" user=nobody`) || !strings.Contains(log, "the user does not exist") || strings.Contains(log, "looks") {
		t.Error("what the log says of failed logins")
	}
	old, err := os.ReadFile(px.path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(old), "monitor_users: [watch]}", "monitor_users: [other], open: [metrics]}", 1) +
		"auth: {rules: [{databases: shardproxy, users: app, method: reject}, {method: scram-sha-256}]}\n"
	px.write(changed)
	if err := px.p.reload(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, user, password string
		want                 int
	}{
		{"/metrics", "", "", 200}, {"/metrics?compat=pgbouncer", "", "", 200}, {"/livez", "", "", 401}, {"/", "watch", "looks", 403}, {"/", "other", "else", 200}, {"/", "app", secret, 401},
	} {
		if got := px.asksAdmin("http", c.path, c.user, c.password); got != c.want {
			t.Errorf("behind the reload: %s as %q: %d, want %d", c.path, c.user, got, c.want)
		}
	}
}

// TestAdminTLS: the admin address speaks TLS with the certificate of clients,
// ready asks it all the same, and what others can reach is said in the log.
func TestAdminTLS(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{TLS: true})
	certificate, key, err := cl.TLS().Issue("localhost")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(configText, "admin_users: [app]", "admin_users: [app], tls: true", 1)
	text = strings.Replace(text, `{address: "%LISTEN%"}`, `{address: "%LISTEN%", tls: {certificate: `+certificate+", key: "+key+", client_ca: "+certificate+"}}", 1)
	px := startProgram(t, cl, text)
	secret := px.p.state.Load().cfg.User("app").Password.Reveal()
	eventually(t, "the proxy is ready", func() bool { return px.asksAdmin("https", "/readyz", "", "") == 200 })
	if got := px.asksAdmin("https", "/", "app", secret); got != 200 {
		t.Errorf("with TLS: %d", got)
	}
	if got := px.asksAdmin("http", "/", "app", secret); got != 400 {
		t.Errorf("without TLS: %d", got)
	}
	if o := call(t, "", "ready", "--address", px.p.http.Addr().String()); o.code != 0 {
		t.Errorf("%+v", o)
	}
	if strings.Contains(px.logged(), "can be reached by others") {
		t.Error("an address of this machine is said to be reached by others")
	}
	other := startProgram(t, cl, strings.Replace(configText, `address: "%ADMIN%", admin_users: [app]`, `address: "0.0.0.0:0"`, 1))
	if !strings.Contains(other.logged(), "the admin address can be reached by others, and asks for no password") {
		t.Error("an open address is not told of")
	}
}
