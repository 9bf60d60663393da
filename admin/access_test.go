package admin

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/auth"
	"shardproxy/config"
	"shardproxy/wire"
)

// roster is who gets in: the password is the name, and pw.
type roster map[string]auth.Identity

func (r roster) CheckPassword(_ context.Context, g auth.Given) (auth.Identity, error) {
	id, ok := r[g.User]
	switch {
	case g.Database != config.ConsoleDatabase || !g.Addr.IsValid():
		return auth.Identity{}, wire.Fatal("XX000", "asked for %+v", g)
	case g.User == "guesser":
		return auth.Identity{}, wire.Fatal("53300", "too many failed logins")
	case g.User == "unsure":
		return auth.Identity{}, wire.Fatal("57P03", "user cannot be looked up now")
	case !ok || g.Password != g.User+"pw":
		return auth.Identity{}, wire.Fatal("28P01", "password authentication failed for user %q", g.User)
	}
	id.User = g.User
	return id, nil
}

var operators = roster{"dba": {Admin: true, Monitor: true}, "ops": {Monitor: true}, "app": {}}

// asks is a Server whose settings can change.
func asks(t *testing.T, o Options, set config.Admin) (*Server, string, *atomic.Pointer[config.Admin]) {
	t.Helper()
	var now atomic.Pointer[config.Admin]
	now.Store(&set)
	o.Settings, o.Logins = now.Load, operators
	if o.Source == nil {
		w := newWorld()
		o.Source, o.Steerer = w, w
	}
	s, url := openServer(t, o)
	return s, url, &now
}

// ask sends a request as a user, "" for nobody, by a host, "" for the right one.
func ask(t *testing.T, method, url, user, host string, more ...string) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, user+"pw")
	}
	if host != "" {
		req.Host = host
	}
	for i := 0; i+1 < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // /api/v1/live has no end
	return resp.StatusCode, resp.Header
}

// pathOf is a path that a route's pattern stands for.
func pathOf(rt route) (method, path string) {
	method, path, _ = strings.Cut(rt.pattern, " ")
	return method, strings.TrimSuffix(path, "{$}")
}

// TestRoles asks for every path of the table as everybody. What each takes
// stands here a second time, so that one added without a thought fails.
func TestRoles(t *testing.T) {
	open := map[string]string{"/livez": config.AdminOpenProbes, "/readyz": config.AdminOpenProbes, "/metrics": config.AdminOpenMetrics}
	looks := []string{"/", "/assets/dashboard.js", "/assets/steer.js", "/assets/dashboard.css", "/assets/icon.svg", "/livez", "/readyz", "/metrics", "/api/v1/live", "/api/v1/history", "/api/v1/session",
		"/api/v1/status", "/api/v1/slots", "/api/v1/moves", "/api/v1/proxies", "/api/v1/doubts", "/api/v1/events", "/api/v1/statements"}
	admins := []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/profile", "/debug/pprof/trace"}
	orders := []string{"/api/v1/moves/pause", "/api/v1/moves/resume", "/api/v1/moves/abort", "/api/v1/moves/rollback", "/api/v1/moves/complete", "/api/v1/moves/plan", "/api/v1/moves/start"}
	for _, words := range [][]string{{}, {config.AdminOpenProbes}, {config.AdminOpenProbes, config.AdminOpenMetrics}} {
		book := &logBook{}
		s, url, _ := asks(t, Options{Pprof: true, Logger: slog.New(slog.NewTextHandler(book, nil))}, config.Admin{AdminUsers: []string{"dba"}, Open: words})
		routes, err := s.routes()
		if err != nil {
			t.Fatal(err)
		}
		if want := len(looks) + len(admins) + len(orders); len(routes) != want {
			t.Errorf("%d routes, want %d", len(routes), want)
		}
		for _, rt := range routes {
			method, path := pathOf(rt)
			if method == "POST" && slices.Contains(orders, path) {
				for user, want := range map[string]int{"dba": 200, "ops": 403, "app": 403, "": 401, "eve": 401} {
					// A token of its own does not make a monitor user an admin.
					if code, _, body := sendOrder(t, url+path, user, map[bool]string{true: `{"plan":"abc"}`, false: "{}"}[path == "/api/v1/moves/start"], "X-Csrf-Token", s.orders.token(user)); code != want {
						t.Errorf("%s as %q: %d %s, want %d", rt.pattern, user, code, body, want)
					}
				}
				continue
			}
			if method != "GET" || !slices.Contains(looks, path) && !slices.Contains(admins, path) {
				t.Errorf("%s: decide who may ask for it", rt.pattern)
			}
			at := url + path
			if path == "/debug/pprof/profile" || path == "/debug/pprof/trace" {
				at += "?seconds=1"
			}
			for user, want := range map[string]int{"dba": 200, "ops": 200, "app": 403, "": 401, "eve": 401} {
				switch {
				case slices.Contains(words, open[path]):
					want = 200
				case user == "ops" && slices.Contains(admins, path):
					want = 403
				}
				code, h := ask(t, method, at, user, "")
				if path == "/readyz" && want == 200 && code == 503 {
					code = 200
				}
				if path == "/debug/pprof/profile" && code == 500 {
					code = 200 // another test is profiled
				}
				if code != want || (code == 401) != (h.Get("WWW-Authenticate") == `Basic realm="shardproxy", charset="UTF-8"`) {
					t.Errorf("%v: %s as %q: %d %q, want %d", words, path, user, code, h.Get("WWW-Authenticate"), want)
				}
				if code != 200 && (h.Get("Cache-Control") != "no-store" || h.Get("Access-Control-Allow-Origin") != "") {
					t.Errorf("%s: %v", path, h)
				}
			}
		}
		for _, said := range []string{`msg="admin login failed" user=eve`, `msg="admin request refused" user=app`} {
			if !strings.Contains(book.String(), said) {
				t.Errorf("the log lacks %s", said)
			}
		}
		if strings.Contains(book.String(), "evepw") {
			t.Error("the log has a password")
		}
	}
}

// TestLoginSettings: when a password is asked for, and what comes of the answers.
func TestLoginSettings(t *testing.T) {
	_, url, now := asks(t, Options{Pprof: true}, config.Admin{})
	for _, c := range []struct {
		set  config.Admin
		user string
		want int
	}{
		{config.Admin{Login: config.AdminLoginAuto}, "", 200},
		{config.Admin{Login: config.AdminLoginAuto, AdminUsers: []string{"dba"}}, "", 401},
		{config.Admin{Login: config.AdminLoginAuto, MonitorUsers: []string{"ops"}}, "", 401},
		{config.Admin{Login: config.AdminLoginAuto, MonitorUsers: []string{"ops"}}, "ops", 200},
		{config.Admin{Login: config.AdminLoginOff, AdminUsers: []string{"dba"}}, "", 200},
		{config.Admin{Login: config.AdminLoginRequired}, "", 401},
		{config.Admin{Login: config.AdminLoginRequired}, "guesser", 429},
		{config.Admin{Login: config.AdminLoginRequired}, "unsure", 503},
	} {
		now.Store(&c.set)
		if code, h := ask(t, "GET", url+"/api/v1/status", c.user, ""); code != c.want || (code == 429 || code == 503) != (h.Get("Retry-After") != "") {
			t.Errorf("%+v as %q: %d %v, want %d", c.set, c.user, code, h, c.want)
		}
	}
	// Without passwords, profiles are for this machine.
	now.Store(&config.Admin{})
	if code, _ := ask(t, "GET", url+"/debug/pprof/cmdline", "", ""); code != 200 {
		t.Errorf("profiles on the loopback: %d", code)
	}
	a := newAccess(Options{Settings: now.Load})
	h := a.admit(route{"GET /x", mayRead, "", http.NotFoundHandler()})
	for _, ip := range []string{"192.0.2.1", "0.0.0.0", "2001:db8::1"} {
		req, err := http.NewRequest("GET", "http://127.0.0.1/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		w := &answer{}
		h.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.ParseIP(ip)}))))
		if w.code != 403 {
			t.Errorf("profiles at %s: %d", ip, w.code)
		}
	}
}

// TestLiveEndsWithReload: who is shown what happens is asked anew who it is behind a reload.
func TestLiveEndsWithReload(t *testing.T) {
	_, url, now := asks(t, Options{}, config.Admin{Open: []string{config.AdminOpenProbes}})
	v, code := watch(t, url)
	if code != 200 {
		t.Fatal(code)
	}
	v.until("status")
	now.Store(&config.Admin{AdminUsers: []string{"dba"}})
	began := time.Now()
	for {
		if name, _ := v.next(); name == "" {
			break
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("events ended %s behind the reload", took)
	}
	if _, code := watch(t, url); code != 401 {
		t.Errorf("behind the reload: %d", code)
	}
}

// TestLiveEndsWithEarlyReload: a reload that comes between the question who somebody is and the first of what
// is shown ends it as well.
func TestLiveEndsWithEarlyReload(t *testing.T) {
	first, then := &config.Admin{Open: []string{config.AdminOpenProbes}}, &config.Admin{AdminUsers: []string{"dba"}}
	var now atomic.Pointer[config.Admin]
	now.Store(first)
	a := newAccess(Options{Settings: now.Load})
	var before, behind bool
	h := a.admit(route{"GET /x", mayLook, "", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		before = a.stillLet(r)
		now.Store(then)
		behind = a.stillLet(r)
	})})
	h.ServeHTTP(&answer{}, httptest.NewRequest("GET", "http://127.0.0.1/x", nil))
	if !before || behind {
		t.Errorf("let in: %v, behind the reload: %v", before, behind)
	}
}

// answer notes the status.
type answer struct {
	code int
	h    http.Header
}

func (a *answer) Header() http.Header {
	if a.h == nil {
		a.h = http.Header{}
	}
	return a.h
}
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }
func (a *answer) WriteHeader(code int)        { a.code = code }

// TestLoginsAreBounded: one check of a password too many is refused.
func TestLoginsAreBounded(t *testing.T) {
	s, url, _ := asks(t, Options{}, config.Admin{AdminUsers: []string{"dba"}, Open: []string{config.AdminOpenProbes}})
	for range loginsAtOnce {
		s.access.logins <- struct{}{}
	}
	if code, _ := ask(t, "GET", url+"/", "dba", ""); code != 503 {
		t.Errorf("one too many: %d", code)
	}
	if code, _ := ask(t, "GET", url+"/livez", "", ""); code != 200 {
		t.Errorf("a probe beside them: %d", code)
	}
	<-s.access.logins
	if code, _ := ask(t, "GET", url+"/", "dba", ""); code != 200 {
		t.Errorf("when one has ended: %d", code)
	}
}

// TestHosts: by which names the address may be asked for.
func TestHosts(t *testing.T) {
	_, url, now := asks(t, Options{}, config.Admin{Open: []string{config.AdminOpenProbes, config.AdminOpenMetrics}, Hosts: []string{"Proxy.example", "proxy-1"}})
	port := url[strings.LastIndex(url, ":"):]
	for host, want := range map[string]int{
		"": 200, "127.0.0.1" + port: 200, "10.1.2.3:80": 200, "[::1]" + port: 200, "[2001:db8::1]": 200, "localhost" + port: 200, "LOCALHOST": 200, "a.localhost": 200,
		"proxy.example": 200, "PROXY.EXAMPLE.:9": 200, "proxy-1" + port: 200,
		"evil.example": 421, "evil.example" + port: 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "notlocalhost": 421, "proxy.example.evil": 421, "x.proxy.example": 421,
		"0x7f.1": 421, "2130706433": 421,
	} {
		for _, path := range []string{"/", "/metrics", "/api/v1/status", "/livez"} {
			expected := want
			if path == "/livez" {
				expected = 200 // health checks ask by any name
			}
			if code, _ := ask(t, "GET", url+path, "", host); code != expected {
				t.Errorf("%s by %q: %d, want %d", path, host, code, expected)
			}
		}
	}
	// It is refused before a password is asked for, and by a name that has gone.
	now.Store(&config.Admin{AdminUsers: []string{"dba"}})
	if code, h := ask(t, "GET", url+"/", "dba", "proxy.example"); code != 421 || h.Get("WWW-Authenticate") != "" {
		t.Errorf("%d %v", code, h)
	}
	a := newAccess(Options{Address: "Ops.example:9127"})
	if !a.knows(&config.Admin{}, "ops.example:9127") || a.knows(&config.Admin{}, "") {
		t.Error("the host of the address itself")
	}
}

// TestExposures: what is said of who can reach the address.
func TestExposures(t *testing.T) {
	for _, c := range []struct {
		address string
		set     config.Admin
		want    string
	}{
		{"127.0.0.1:0", config.Admin{}, ""},
		{"127.0.0.1:0", config.Admin{AdminUsers: []string{"dba"}}, ""},
		{"0.0.0.0:0", config.Admin{}, "asks for no password"},
		{"0.0.0.0:0", config.Admin{AdminUsers: []string{"dba"}, Login: config.AdminLoginOff}, "asks for no password"},
		{"0.0.0.0:0", config.Admin{AdminUsers: []string{"dba"}}, "without TLS"},
	} {
		s, err := New(Options{Address: c.address, Source: newWorld(), Settings: func() *config.Admin { return &c.set }})
		if err != nil {
			t.Fatal(err)
		}
		if s.Exposures() != nil {
			t.Error("before it listens")
		}
		if err := s.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.Exposures(), "; "); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s %+v: %q, want %q", c.address, c.set, got, c.want)
		}
		s.Close()
	}
}
