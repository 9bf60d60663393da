package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestCompatAsked: only a name that is known is served, and nothing else instead of one that is not.
func TestCompatAsked(t *testing.T) {
	w := newWorld()
	console := newTestConsole(t, w)
	for _, c := range []struct {
		console *Console
		query   string
		want    int
		begins  string
	}{
		{console, "", 200, "shardproxy_"},
		{console, "?name=else", 200, "shardproxy_"},
		{console, "?compat=pgbouncer", 200, "pgbouncer_"},
		{console, "?x=y&compat=pgbouncer", 200, "pgbouncer_"},
		{console, "?compat=", 400, ""}, {console, "?compat", 400, ""}, {console, "?compat=PgBouncer", 400, ""}, {console, "?compat=odyssey", 400, ""},
		{console, "?compat=pgbouncer&compat=pgbouncer", 400, ""}, {console, "?compat=pgbouncer;x", 400, ""}, {console, "?compat=%zz", 400, ""},
		{nil, "", 200, "shardproxy_"}, {nil, "?compat=pgbouncer", 400, ""},
	} {
		rec := scraped(t, w, c.console, c.query)
		if rec.Code != c.want {
			t.Errorf("%q: %d, want %d", c.query, rec.Code, c.want)
		}
		for line := range strings.Lines(rec.Body.String()) {
			if line[0] != '#' && c.want == 200 && !strings.HasPrefix(line, c.begins) {
				t.Errorf("%q: %s", c.query, line)
				break
			}
		}
	}
}

// TestCompatOdd: names that are no UTF-8, settings that are no numbers and databases without a primary keep nothing else
// from being told.
func TestCompatOdd(t *testing.T) {
	w := newWorld()
	w.databases[0].ServerUser = "odd \xff"
	w.databases[0].Shards[0].Nodes = w.databases[1].Shards[0].Nodes
	w.clients = append(w.clients, Client{Database: "shop", User: "app", ApplicationName: "\xfe"}, Client{Database: "shop", User: "app", ApplicationName: "\xfe"})
	console := newTestConsole(t, w)
	rec := scraped(t, w, console, "?compat=pgbouncer")
	for _, want := range []string{
		`pgbouncer_databases_paused{database="shopdb",force_user="odd �",host="",name="shop",pool_mode="transaction",port=""} 0`,
		`pgbouncer_client_connections{application_name="�",database="shop",state="idle",user="app"} 2`,
		`pgbouncer_stats_totals_client_wait_seconds_total{database="shop"} 1.5`,
		`pgbouncer_version_info{version="PgBouncer ` + bouncerVersion + ` console of shardproxy 1.2.3"} 1`,
	} {
		if text := rec.Body.String(); rec.Code != 200 || !strings.Contains(text, want+"\n") {
			t.Errorf("%d: there is no %s in\n%s", rec.Code, want, text)
		}
	}
}

func newTestConsole(t *testing.T, w *world) *Console {
	t.Helper()
	c, err := NewConsole(ConsoleOptions{Source: w, Configuration: w, Steerer: w, Version: "1.2.3", Clock: clockAt})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scraped asks for the metrics, without a listener.
func scraped(t *testing.T, w *world, c *Console, query string) *httptest.ResponseRecorder {
	t.Helper()
	s, err := New(Options{Address: "127.0.0.1:0", Source: w, Console: c})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/metrics"+query, nil))
	return rec
}
