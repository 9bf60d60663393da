package admin

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	"shardproxy/config"
)

// sendOrder sends an order as the page does; more replaces headers, by "" takes them away.
func sendOrder(t *testing.T, url, user, body string, more ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, user+"pw")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Origin", "http://"+req.Host)
	for i := 0; i+1 < len(more); i += 2 {
		if more[i+1] == "" {
			req.Header.Del(more[i])
		} else {
			req.Header.Set(more[i], more[i+1])
		}
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

// forget forgets what was ordered.
func (w *world) forget() { w.mu.Lock(); defer w.mu.Unlock(); w.steered = nil }

// tokenOf returns the token that a user is given.
func tokenOf(t *testing.T, url, user string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/v1/session", nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, user+"pw")
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s apiSession
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp.Status, err)
	}
	if s.User != user || s.Orders != (user == "dba") || (s.Role == "admin") != (user == "dba") || (s.Token != nil) != (user == "dba") {
		t.Errorf("%q is %+v", user, s)
	}
	if s.Token == nil {
		return ""
	}
	return *s.Token
}

// TestForeignOrders: orders that are not from our own page, or not from its
// user, are refused and logged.
func TestForeignOrders(t *testing.T) {
	w, book := newWorld(), &logBook{}
	o := Options{Source: w, Steerer: w, Logger: slog.New(slog.NewTextHandler(book, nil))}
	set := config.Admin{AdminUsers: []string{"dba", "second"}, MonitorUsers: []string{"ops"}, Hosts: []string{"proxy.example"}}
	s, url, now := asks(t, o, set)
	_, other, _ := asks(t, o, set) // another process
	token := tokenOf(t, url, "dba")
	tokenOf(t, url, "ops")
	at := url + "/api/v1/moves/pause"
	for name, c := range map[string]struct {
		headers []string
		body    string
		want    int
	}{
		"right":                       {nil, "{}", 200},
		"from an old browser":         {[]string{"Sec-Fetch-Site", ""}, "{}", 200},
		"without an origin":           {[]string{"Origin", ""}, "{}", 200},
		"without both":                {[]string{"Origin", "", "Sec-Fetch-Site", ""}, "{}", 403},
		"another site":                {[]string{"Sec-Fetch-Site", "cross-site"}, "{}", 403},
		"another host of the site":    {[]string{"Sec-Fetch-Site", "same-site"}, "{}", 403},
		"typed by hand":               {[]string{"Sec-Fetch-Site", "none"}, "{}", 403},
		"another origin":              {[]string{"Origin", "http://evil.example", "Sec-Fetch-Site", ""}, "{}", 403},
		"another port":                {[]string{"Origin", "http://127.0.0.1:1"}, "{}", 403},
		"no origin to speak of":       {[]string{"Origin", "null"}, "{}", 403},
		"a form":                      {[]string{"Content-Type", "text/plain"}, "{}", 403},
		"without a kind":              {[]string{"Content-Type", ""}, "{}", 403},
		"without a token":             {[]string{"X-Csrf-Token", ""}, "{}", 403},
		"with another token":          {[]string{"X-Csrf-Token", strings.Repeat("0", 64)}, "{}", 403},
		"with another user's token":   {[]string{"X-Csrf-Token", s.orders.token("second")}, "{}", 403},
		"with the token of nobody":    {[]string{"X-Csrf-Token", s.orders.token("")}, "{}", 403},
		"of another process":          {[]string{"X-Csrf-Token", tokenOf(t, other, "dba")}, "{}", 403},
		"too long":                    {nil, `{"database":"` + strings.Repeat("x", orderBytes) + `"}`, 400},
		"not JSON":                    {nil, "database=shop", 400},
		"with what nobody knows":      {nil, `{"force":true}`, 400},
		"two at once":                 {nil, `{} {}`, 400},
		"ids of moves to be paused":   {nil, `{"ids":[1]}`, 400},
		"of a database without moves": {nil, `{"database":"My-Db.2"}`, 409},
		"of no database":              {nil, `{"database":"none"}`, 404},
	} {
		w.forget()
		code, h, body := sendOrder(t, at, "dba", c.body, append([]string{"X-Csrf-Token", token}, c.headers...)...)
		if code != c.want || h.Get("Content-Type") != "application/json" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %d %s, want %d", name, code, body, c.want)
		}
		if got := w.orders(); (got != "") != (c.want == 200) {
			t.Errorf("%s: ordered %q", name, got)
		}
	}
	if code, h, _ := sendOrder(t, at, "", "{}", "X-Csrf-Token", token); code != 401 || h.Get("WWW-Authenticate") == "" {
		t.Errorf("without a password: %d", code)
	}
	w.forget()
	// Where no password is asked for nobody steers.
	now.Store(&config.Admin{AdminUsers: []string{"dba"}, Login: config.AdminLoginOff})
	for _, user := range []string{"", "dba"} {
		if code, _, _ := sendOrder(t, at, user, "{}", "X-Csrf-Token", s.orders.token("")); code != 403 {
			t.Errorf("nobody, called %q: %d", user, code)
		}
	}
	if code, _ := ask(t, "OPTIONS", at, "dba", ""); code != 405 {
		t.Errorf("a browser that asks what another origin may: %d", code)
	}
	if got := w.orders(); got != "" {
		t.Errorf("ordered %q", got)
	}
	for _, said := range []string{`msg="admin order refused" user=dba`, "origin=http://evil.example", "comes from another site", "lacks the token"} {
		if !strings.Contains(book.String(), said) {
			t.Errorf("the log lacks %s", said)
		}
	}
	if strings.Contains(book.String(), token) {
		t.Error("the log has a token")
	}
}

// TestMoveOrders: each order reaches the moves, and the log says who gave it.
func TestMoveOrders(t *testing.T) {
	w, book := newWorld(), &logBook{}
	_, url, _ := asks(t, Options{Source: w, Steerer: w, Logger: slog.New(slog.NewTextHandler(book, nil))}, config.Admin{AdminUsers: []string{"dba"}})
	token := tokenOf(t, url, "dba")
	for _, c := range []struct {
		path, body, ordered, answer string
		code                        int
	}{
		{"pause", `{}`, "pause shop []", `{"database":"shop","said":"3 moves"}`, 200},
		{"resume", `{"database":"shop"}`, "resume shop []", `{"database":"shop","said":"3 moves"}`, 200},
		{"abort", `{}`, "abort shop []", `{"database":"shop","said":"3 moves"}`, 200},
		{"rollback", `{"ids":[4,5]}`, "rollback shop [4 5]", `{"database":"shop","said":"3 moves"}`, 200},
		{"complete", `{}`, "complete shop []", `{"database":"shop","said":"3 moves"}`, 200},
		{"complete", `{"ids":[4]}`, "complete shop [4]", `{"sqlstate":"55000","message":"no such move","detail":"","hint":""}`, 409},
		{"plan", `{}`, "plan false shop", "", 200},
		{"plan", `{"database":"shop","add":["s3"],"remove":["s1"],"weight":["s0=2"],"by":"rows","threshold":"5%"}`, "plan false shop add 's3' remove 's1' weight 's0=2' by 'rows' threshold '5%'", "", 200},
		{"plan", `{"tenant":["orders.customer_id=42"],"slots":"1,2","to":"s1","reversible":true}`, "plan false shop tenant 'orders.customer_id=42' slots '1,2' to 's1' reversible", "", 200},
		{"plan", `{"remove":["s9"]}`, "plan false shop remove 's9'", `{"sqlstate":"22023","message":"REMOVE s9: there is no such shard","detail":"","hint":""}`, 400},
		{"start", `{"remove":["s1"],"plan":"abc"}`, "plan true shop remove 's1' plan 'abc'", "", 200},
		{"start", `{"remove":["s1"]}`, "", `{"sqlstate":"42601","message":"what is begun is a plan that was looked at: plan is missing","detail":"","hint":""}`, 400},
	} {
		w.forget()
		code, _, body := sendOrder(t, url+"/api/v1/moves/"+c.path, "dba", c.body, "X-Csrf-Token", token)
		if code != c.code || c.answer != "" && strings.TrimSpace(body) != c.answer || c.answer == "" && !strings.Contains(body, `"plan":"abc"`) {
			t.Errorf("%s %s: %d %s", c.path, c.body, code, body)
		}
		if got := w.orders(); got != c.ordered {
			t.Errorf("%s %s: ordered %q", c.path, c.body, got)
		}
	}
	for _, said := range []string{`msg="admin order" user=dba`, `command="moves rollback" order="{\"ids\":[4,5]}"`, `msg="admin order done" user=dba`, `said="3 moves"`, `msg="admin order failed" user=dba`, `error="no such move"`} {
		if !strings.Contains(book.String(), said) {
			t.Errorf("the log lacks %s:\n%s", said, book.String())
		}
	}
}

// TestOrdersPage: docs/dashboard.md defines what orders take and answer, and lists each of them.
func TestOrdersPage(t *testing.T) {
	for name, of := range map[string]any{"session": apiSession{}, "order": apiOrder{}, "done": apiDone{}, "planorder": apiPlanOrder{}, "plan": Plan{}, "refusal": apiRefusal{}} {
		checkPage(t, "../docs/dashboard.md", name, "\n| field | meaning |\n| --- | --- |\n"+fieldRows(t, reflect.TypeOf(of), "")+"\n")
	}
	page, err := os.ReadFile("../docs/dashboard.md")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	for _, rt := range newOrders(Options{Source: w, Steerer: w}).routes() {
		if _, path := pathOf(rt); !strings.Contains(string(page), "| `"+path+"` |") {
			t.Errorf("docs/dashboard.md lacks %s", path)
		}
	}
}
