package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"shardproxy/config"
	"shardproxy/wire"
)

// TestCheckPassword: who gets in with name and password alone, by every kind of
// secret and by the rules for the database.
func TestCheckPassword(t *testing.T) {
	md5 := "md5" + strings.TrimPrefix(hashMD5("secret", "hashed"), "md5")
	users := []config.User{plain("dba", "secret"), verified("watch", HashPassword("secret")), verified("hashed", md5), plain("app", "secret"), {Name: "none"}}
	cfg := settings(config.MethodSCRAM, users...)
	cfg.Admin = config.Admin{AdminUsers: []string{"dba"}, MonitorUsers: []string{"watch"}}
	cfg.Auth.Throttle.Delay = 0 // failures come in heaps here
	a := mustNew(t, Options{Config: cfg})
	far := netip.MustParseAddrPort("192.0.2.1:7")
	check := func(user, password string) (Identity, string) {
		t.Helper()
		id, err := a.CheckPassword(context.Background(), Given{User: user, Password: password, Database: "shardproxy", Addr: far})
		if err == nil {
			return id, ""
		}
		var we *wire.Error
		if !errors.As(err, &we) || id != (Identity{}) {
			t.Fatalf("%v and %+v", err, id)
		}
		return id, we.Code
	}
	for _, user := range []string{"dba", "watch", "hashed", "app"} {
		id, code := check(user, "secret")
		if code != "" || id.User != user || id.Admin != (user == "dba") || id.Monitor != (user == "dba" || user == "watch") {
			t.Errorf("%s: %s %+v", user, code, id)
		}
	}
	for _, given := range [][2]string{{"dba", "Secret"}, {"dba", ""}, {"watch", "secret "}, {"watch", HashPassword("secret")}, {"hashed", md5}, {"hashed", "x"}, {"nobody", "secret"}, {"none", ""}, {"none", "secret"}} {
		if _, code := check(given[0], given[1]); code != "28P01" {
			t.Errorf("%q: %s", given, code)
		}
	}
	for given, want := range map[[2]string]string{{"dba", "sec\x00ret"}: "08P01", {"dba", strings.Repeat("x", maxTokenBytes)}: "08P01", {"", "secret"}: "28000"} {
		if _, code := check(given[0], given[1]); code != want {
			t.Errorf("%.20q: %s, want %s", given, code, want)
		}
	}
	for _, c := range []struct {
		rule config.Rule
		tls  bool
		want string
	}{
		{config.Rule{Method: config.MethodReject}, false, "28000"},
		{config.Rule{Method: config.MethodCert}, true, "28000"},
		{config.Rule{Method: config.MethodTrust}, false, ""},
		{config.Rule{Method: config.MethodMD5}, false, ""},
		{config.Rule{Method: config.MethodPassword}, false, ""}, // the caller has judged the transport
		{config.Rule{Method: config.MethodSCRAM, Databases: []string{"shop"}}, false, "28000"},
		{config.Rule{Method: config.MethodSCRAM, Users: []string{"watch"}}, false, "28000"},
		{config.Rule{Method: config.MethodSCRAM, Addresses: prefixes("10.0.0.0/8")}, false, "28000"},
		{config.Rule{Method: config.MethodSCRAM, Addresses: prefixes("192.0.2.0/24")}, false, ""},
		{config.Rule{Method: config.MethodSCRAM, TLS: config.RuleTLSRequire}, false, "28000"},
		{config.Rule{Method: config.MethodSCRAM, TLS: config.RuleTLSRequire}, true, ""},
	} {
		cfg.Auth.Rules = []config.Rule{c.rule}
		if err := a.Update(cfg); err != nil {
			t.Fatal(err)
		}
		g := Given{User: "dba", Password: "secret", Database: "shardproxy", Addr: far}
		if c.tls {
			g.TLS = &tls.ConnectionState{}
		}
		_, err := a.CheckPassword(context.Background(), g)
		var we *wire.Error
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &we) || we.Code != c.want) {
			t.Errorf("%+v: %v, want %q", c.rule, err, c.want)
		}
		g.Password = "wrong"
		if _, err := a.CheckPassword(context.Background(), g); err == nil {
			t.Errorf("%+v lets a wrong password in", c.rule)
		}
	}
}

// TestCheckPasswordIsThrottled: failures here and failed logins of clients are
// of one count.
func TestCheckPasswordIsThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := settings(config.MethodSCRAM, plain("dba", "secret"))
		a := mustNew(t, Options{Config: cfg})
		addr := netip.MustParseAddrPort("192.0.2.1:7")
		g := Given{User: "dba", Password: "wrong", Database: "shardproxy", Addr: addr}
		took := func(password string) time.Duration {
			start := time.Now()
			g.Password = password
			if _, err := a.CheckPassword(context.Background(), g); (err == nil) != (password == "secret") {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		took("wrong")
		c := client("dba", "wrong")
		c.addr = addr
		if _, err := login(t, a, c, "dba"); err == nil || err.Code != "28P01" {
			t.Fatal(err)
		}
		if got := took("secret"); got != 200*time.Millisecond {
			t.Errorf("behind two failures it took %s", got)
		}
		if got := took("secret"); got != 0 {
			t.Errorf("behind a success it took %s", got)
		}
		for range 20 {
			a.throttle.failed(addr.Addr())
		}
		refused := 0
		for range 5 {
			ctx, end := context.WithTimeout(context.Background(), time.Millisecond)
			_, err := a.CheckPassword(ctx, g)
			end()
			var we *wire.Error
			if errors.As(err, &we) && we.Code == "53300" {
				refused++
			} else if err == nil || we.Code != "57014" {
				t.Fatal(err)
			}
		}
		if refused == 0 {
			t.Error("nobody is refused")
		}
	})
}
