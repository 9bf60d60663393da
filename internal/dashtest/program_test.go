package dashtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/clientrun"
	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// stage is the real program before two shards of real servers.
type stage struct {
	t      *testing.T
	shards []*pgtest.Cluster
	binary string
	file   string
	admin  string // host:port
	dsn    string
	proxy  *clientrun.Program
}

const schema = `
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id bigint, customer_id bigint REFERENCES customers, note text, PRIMARY KEY (customer_id, id));`

func openStage(t *testing.T) *stage { return openStageOf(t, "", "") }

// openStageOf adds settings to the section admin, and users.
func openStageOf(t *testing.T, settings, users string) *stage {
	t.Helper()
	if err := clientrun.TouchSources(); err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t}
	var err error
	if s.binary, err = clientrun.Build(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	ports, err := clientrun.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	s.admin = fmt.Sprintf("127.0.0.1:%d", ports[1])
	s.dsn = fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=%s dbname=app sslmode=disable", ports[0], pgcluster.AppUser, pgcluster.AppPassword)
	var list strings.Builder
	for i, replicas := range []int{0, 1} {
		cl := pgtest.Start(t, pgtest.Options{Replicas: replicas, Settings: map[string]string{"wal_level": "logical"}})
		s.shards = append(s.shards, cl)
		var nodes []string
		for _, n := range cl.Nodes() {
			nodes = append(nodes, fmt.Sprintf("%q", n.Addr()))
		}
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%s]}\n", i, strings.Join(nodes, ", "))
		if _, err := pgtest.Connect(t, cl.Primary().DSN("app", "app")).Exec(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
	}
	s.file = filepath.Join(t.TempDir(), "shardproxy.yaml")
	text := fmt.Sprintf("listen: {address: \"127.0.0.1:%d\"}\nadmin: {address: %q%s}\nusers:\n  - {name: app, password: %s}\n%sdatabases:\n  app:\n    shards:\n%s"+
		"    server: {control: {user: postgres}}\n    catalog: {refresh: 1s}\n    tables:\n      customers: {key: id}\n      orders: {key: customer_id}\n",
		ports[0], s.admin, settings, pgcluster.AppPassword, users, list.String())
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.call("init", "-c", s.file)
	s.start()
	t.Cleanup(func() {
		if err := s.proxy.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			s.proxy.PrintLog()
		}
	})
	return s
}

// call runs one of the program's commands, which must succeed.
func (s *stage) call(args ...string) {
	s.t.Helper()
	if out, err := exec.CommandContext(s.t.Context(), s.binary, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

func (s *stage) start() {
	s.t.Helper()
	var err error
	if s.proxy, err = clientrun.Start(s.t.Context(), s.binary, s.file, s.admin); err != nil {
		s.t.Fatal(err)
	}
}

// fill writes rows through the proxy as soon as it knows the tables.
func (s *stage) fill() {
	t := s.t
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := c.Exec(t.Context(), "INSERT INTO customers SELECT i, 'customer ' || i FROM generate_series(1, 3000) i")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestProgram: each region is what the API of a real proxy says; a bar only
// grows; a killed primary turns its cell within two seconds, and back; the page
// goes on when the proxy was started again.
func TestProgram(t *testing.T) {
	s := openStage(t)
	s.fill()
	b := openTab(t, openBrowser(t), "http://"+s.admin+"/", 1280, 800)
	b.live()
	b.until(`document.querySelectorAll("#proxies tbody tr").length`, "1") // the home shard was asked
	b.equalsAPI()
	b.until(`document.querySelector("#verdict").dataset.class`, `"good"`)
	b.moves(s)
	b.equalsAPI()
	b.lastSample()
	b.kills(s)
	b.screenshot("program-wide-light")
	b.quiet(false)
	b.restarts(s)
	b.equalsAPI()
	b.run(chromedp.EmulateViewport(390, 800))
	b.fits()
	b.screenshot("program-narrow-light")
	b.quiet(true)
}

// moves has slots moved, and looks at the bar every 20 ms.
func (b *tab) moves(s *stage) {
	t := b.t
	t.Helper()
	var slots []string
	for _, row := range s.shards[0].Primary().Rows("app", "SELECT slot FROM shardproxy.slots WHERE shard = 's0' ORDER BY slot LIMIT 100") {
		slots = append(slots, row[0])
	}
	b.run(chromedp.Evaluate(`window.bars = []; window.looking = setInterval(() => { document.querySelectorAll(".move").forEach(m => bars.push([+m.dataset.key, m.querySelector("progress").value])) }, 20)`, nil))
	s.call("rebalance", "start", "-c", s.file, "--slots", strings.Join(slots, ","), "--to", "s1")
	b.until(`[...document.querySelectorAll("#moves .ended tbody tr")].map(r => [...r.cells].slice(2, 6).map(c => c.textContent))`, `[["s0","s1","36","done"],["s0","s1","64","done"]]`)
	var bars [][2]float64 // move and bar
	if err := json.Unmarshal([]byte(b.eval("(clearInterval(looking), bars)")), &bars); err != nil {
		t.Fatal(err)
	}
	last, seen := map[float64]float64{}, map[float64]bool{}
	for _, bar := range bars {
		if bar[1] < last[bar[0]] {
			t.Errorf("the bar of move %v went from %v to %v", bar[0], last[bar[0]], bar[1])
		}
		last[bar[0]], seen[bar[1]] = bar[1], true
	}
	if len(last) == 0 || len(seen) < 2 {
		t.Errorf("bars were seen of the moves and at the places %v", last)
	}
}

// lastSample waits until the plots have the newest sample.
func (b *tab) lastSample() {
	t := b.t
	t.Helper()
	b.until(`/^at most/.test(document.querySelector('[data-key="Statements"] .top').textContent)`, "true")
	clients := list(answer(t, b.url, "history"), "total.clients")
	b.until(`document.querySelector('[data-key="Clients"] .now').textContent`, asJSON(t, fmt.Sprint(clients[len(clients)-1])))
}

// kills kills the primary of the second shard.
func (b *tab) kills(s *stage) {
	t := b.t
	t.Helper()
	primary := s.shards[1].Primary()
	cell := `document.querySelector('[data-shard="s1"]')`
	b.is(cell+`.dataset.class`, "good")
	began := time.Now()
	primary.Kill9()
	b.until(cell+`.dataset.class`, `"bad"`)
	took := time.Since(began)
	t.Logf("a killed primary is seen after %s", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("a killed primary is seen after %s", took)
	}
	b.is(cell+`.querySelector(".state").textContent`, "no primary")
	b.is(fmt.Sprintf(`document.querySelector('[data-address=%q]').dataset.health`, primary.Addr()), "down")
	b.until(`document.querySelector("#verdict").dataset.class`, `"bad"`)
	b.is(`/shard s1 of app has no primary/.test(document.querySelector("#verdict").textContent)`, true)
	b.is(`document.querySelector("#trouble .held tbody tr").cells[0].textContent`, "shard s1 of app")
	b.equalsAPI()
	b.screenshot("program-killed")
	event := func(what string) string {
		return `[...document.querySelectorAll("#events tbody tr")].some(r => r.cells[3].textContent === "s1" && r.cells[4].textContent.includes("` + what + `"))`
	}
	b.until(event("no primary"), "true") // noted once a second
	primary.Start()
	b.until(cell+`.dataset.class`, `"good"`)
	b.until(event("is the primary"), "true")
}

// restarts ends the proxy, and starts it again.
func (b *tab) restarts(s *stage) {
	t := b.t
	t.Helper()
	if err := s.proxy.Stop(); err != nil {
		t.Fatal(err)
	}
	b.until(`[document.querySelector("#link").dataset.state, /the proxy has ended/.test(document.querySelector("#link").textContent), document.body.className]`, `["stale",true,"stale"]`)
	b.screenshot("program-stale")
	s.start()
	b.live()
	b.is(`document.body.className`, "")
	b.until(`document.querySelectorAll("#proxies tbody tr").length > 0`, "true")
}
