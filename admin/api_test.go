package admin

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"shardproxy/failover"
	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// clusterWorld is a world whose first database has three shards, a move that
// goes on, one that has ended, and a proxy that is behind.
func clusterWorld() *world {
	w := newWorld()
	at := clockAt()
	w.databases[0].Shards = append(w.databases[0].Shards, Shard{Name: "s1", Nodes: w.databases[0].Shards[0].Nodes}, Shard{Name: "s2", Nodes: w.databases[0].Shards[0].Nodes})
	c := &Cluster{
		Epoch: 9, Slots: 16, Guarded: true, At: at, Self: "p1", Members: []string{"s0", "s1", "gone"}, Error: "the home shard does not answer",
		Owners: []SlotRange{{0, 3, "s0", false}, {4, 5, "s0", true}, {6, 11, "s1", false}, {12, 15, "gone", false}},
		Moves: []metadata.Move{
			{ID: 3, Kind: metadata.MoveSlots, Slots: []shardmap.Slot{1}, Source: "s1", Target: "s0", Phase: metadata.MoveDone, Rows: 10, Copied: 11, Purged: 11, HeldMs: 250, PlannedAt: at, Changed: at},
			{ID: 4, Kind: metadata.MoveSlots, Slots: []shardmap.Slot{5, 4, 7}, Source: "s0", Target: "s2", Phase: metadata.MoveCopying, Rows: 1000, Copied: 500, Paused: true, Said: "paused by hand", PlannedAt: at, Changed: at},
		},
		Proxies: []metadata.Acknowledgement{
			{Proxy: "p1", Host: "a", Epoch: 9, Writes: 9, Statements: 9, Age: time.Second, Present: true},
			{Proxy: "p2", Host: "b", Epoch: 9, Writes: 8, Statements: 9, Age: 2 * time.Second, Present: true},
		},
	}
	w.databases[0].Cluster = func() *Cluster { return c }
	return w
}

// getJSON returns what a path of the contract answers.
func getJSON(t *testing.T, url string) map[string]any {
	t.Helper()
	code, h, body := get(t, "GET", url)
	if code != 200 || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %d %v %s", url, code, h, body)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// at follows a path like "databases.0.name".
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for _, step := range strings.Split(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[step]
			if !ok {
				t.Fatalf("%s: there is no %s", path, step)
			}
			v = next
		case []any:
			var i int
			if _, err := fmt.Sscan(step, &i); err != nil || i >= len(in) {
				t.Fatalf("%s: there is no %s of %d", path, step, len(in))
			}
			v = in[i]
		default:
			t.Fatalf("%s: nothing is below %v", path, v)
		}
	}
	return v
}

func wantAt(t *testing.T, v any, path string, want any) {
	t.Helper()
	if got := at(t, v, path); !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %v, want %v", path, got, want)
	}
}

// TestStatusAPI: the figures of the Source are where the contract says.
func TestStatusAPI(t *testing.T) {
	w := clusterWorld()
	w.databases[0].Shards[0].Nodes.Nodes[2].LastError = `<script>alert("x")</script>`
	_, url := openServer(t, Options{Source: w, Version: "0.9.1"})
	s := getJSON(t, url+"/api/v1/status")
	for path, want := range map[string]any{
		"version": "0.9.1", "at": "2026-03-04T05:06:07Z", "verdict.class": "bad", "verdict.reasons.0.class": "bad",
		"process.uptime_seconds": 5400.0, "process.listening": true, "process.clients_limit": 10000.0, "process.logins_total": 40.0, "process.reload_error": nil,
		"databases.0.name": "shop", "databases.0.clients_limit": 500.0, "databases.0.statements_total": 900.0, "databases.0.replica_reads_total": 600.0,
		"databases.0.scatters_total.merge": 11.0, "databases.0.shards.0.primary": "10.0.0.1:5432", "databases.0.shards.0.class": "warn",
		"databases.0.shards.0.nodes.0.writes": true, "databases.0.shards.0.nodes.0.lag_seconds": nil, "databases.0.shards.0.nodes.0.servers_active": 3.0,
		"databases.0.shards.0.nodes.0.clients_waiting": 1.0, "databases.0.shards.0.nodes.0.probe_seconds": 0.0015,
		"databases.0.shards.0.nodes.1.role": "replica", "databases.0.shards.0.nodes.1.lag_bytes": 4096.0, "databases.0.shards.0.nodes.1.lag_seconds": 0.25,
		"databases.0.shards.0.nodes.1.servers_active": 2.0, // of both logins
		"databases.0.shards.0.nodes.2.health":         "down", "databases.0.shards.0.nodes.2.reason": "does not answer",
		"databases.0.shards.0.nodes.2.last_error": `<script>alert("x")</script>`, "databases.0.shards.0.nodes.2.since": nil,
		"databases.1.shards.0.class": "bad", "databases.1.shards.0.primary": nil, "databases.1.shards.0.gate.closed": true,
		"databases.1.shards.0.gate.held": 12.0, "databases.1.shards.0.gate.held_limit": 1000.0, "databases.1.shards.0.gate.oldest_held_seconds": 1.5,
		"pools.0.servers_limit": 20.0, "pools.0.clients_waiting": 1.0, "pools.0.longest_wait_seconds": 1.250001,
	} {
		wantAt(t, s, path, want)
	}
	if pools := at(t, s, "pools").([]any); len(pools) != 2 {
		t.Errorf("%d pools", len(pools))
	}
	w.mu.Lock()
	w.databases, w.pools = nil, nil
	w.mu.Unlock()
	if _, _, body := get(t, "GET", openedAgain(t, w)+"/api/v1/status"); !strings.Contains(body, `"databases":[],"pools":[]`) {
		t.Errorf("an empty proxy: %s", body)
	}
}

// openedAgain is another server, which has no picture to share yet.
func openedAgain(t *testing.T, w *world) string {
	_, url := openServer(t, Options{Source: w})
	return url
}

// TestClusterAPI: slots, moves, proxies and doubts.
func TestClusterAPI(t *testing.T) {
	_, url := openServer(t, Options{Source: clusterWorld()})
	s := getJSON(t, url+"/api/v1/slots")
	for path, want := range map[string]any{
		"databases.0.name": "shop", "databases.0.epoch": 9.0, "databases.0.slots": 16.0, "databases.0.guarded": true, "databases.0.closed": false,
		"databases.0.shards.0": map[string]any{"name": "s0", "slots": 6.0, "slots_held": 2.0, "member": true}, "databases.0.shards.2.member": false, "databases.0.shards.2.slots": 0.0,
		"databases.0.shards.3":    map[string]any{"name": "gone", "slots": 4.0, "slots_held": 0.0, "member": true},
		"databases.0.owners.1":    map[string]any{"from": 4.0, "to": 5.0, "shard": "s0", "held": true},
		"databases.0.moving.0":    map[string]any{"from": 4.0, "to": 5.0, "target": "s2"},
		"databases.0.moving.1.to": 7.0,
	} {
		wantAt(t, s, path, want)
	}
	m := getJSON(t, url+"/api/v1/moves")
	for path, want := range map[string]any{
		"databases.0.error": "the home shard does not answer", "databases.0.read_at": "2026-03-04T05:06:07Z",
		"databases.0.moves.0.ended": true, "databases.0.moves.0.progress": 1.0, "databases.0.moves.0.writes_held_seconds": 0.25,
		"databases.0.moves.1.slots": 3.0, "databases.0.moves.1.paused": true, "databases.0.moves.1.progress": 0.4, "databases.0.moves.1.eta_seconds": nil,
		"databases.0.moves.1.rows_estimated": 1000.0, "databases.0.moves.1.rows_copied": 500.0, "databases.0.moves.1.said": "paused by hand",
		"databases.0.moves.1.slot_ranges.0": map[string]any{"from": 4.0, "to": 5.0},
	} {
		wantAt(t, m, path, want)
	}
	p := getJSON(t, url+"/api/v1/proxies")
	wantAt(t, p, "databases.0.proxies.0.behind", false)
	wantAt(t, p, "databases.0.proxies.1.behind", true)
	wantAt(t, p, "databases.0.proxies.1.age_seconds", 2.0)
	d := getJSON(t, url+"/api/v1/doubts")
	wantAt(t, d, "doubts.0", map[string]any{"database": "shop", "shard": "s1", "name": "shardproxy:c:s0:r:1", "owner": "app", "age_seconds": 90.0, "reason": "there is no decision yet"})
	// Databases of one shard have none of it.
	for _, part := range []string{"slots", "moves", "proxies"} {
		if all := at(t, getJSON(t, url+"/api/v1/"+part), "databases").([]any); len(all) != 1 {
			t.Errorf("%s of %d databases", part, len(all))
		}
	}
}

// TestMoveRates: a bar only grows until the move is given up; the rate is that
// of the rows that came.
func TestMoveRates(t *testing.T) {
	var r moveRates
	now := clockAt()
	m := metadata.Move{ID: 1, Phase: metadata.MoveCopying, Rows: 1000}
	look := func(after time.Duration, phase metadata.MovePhase, copied int64) movePart {
		now, m.Phase, m.Copied = now.Add(after), phase, copied
		return r.measure("shop", []metadata.Move{m}, now)[0]
	}
	if p := look(0, metadata.MoveCopying, 100); p.rate != 0 || p.done != 0.12 {
		t.Errorf("at first: %+v", p)
	}
	if p := look(time.Second, metadata.MoveCopying, 300); p.rate != 200 {
		t.Errorf("after a second: %+v", p)
	}
	if p := look(0, metadata.MoveCopying, 300); p.rate != 200 { // the same reading, looked at again
		t.Errorf("looked at again: %+v", p)
	}
	if p := look(2*time.Second, metadata.MoveCopying, 900); p.rate < 220 || p.rate > 240 || p.done < 0.67 {
		t.Errorf("smoothed: %+v", p)
	}
	before := look(time.Second, metadata.MoveCopying, 900).done
	if p := look(time.Second, metadata.MoveCopying, 50); p.done != before || p.rate != 0 {
		t.Errorf("it began anew: %+v, before %v", p, before)
	}
	look(time.Second, metadata.MoveCopying, 500)
	if p := look(11*time.Second, metadata.MoveCopying, 500); p.rate != 0 {
		t.Errorf("nothing comes: %+v", p)
	}
	last := 0.0
	for _, phase := range []metadata.MovePhase{metadata.MoveFollowing, metadata.MoveFlipped, metadata.MovePurging, metadata.MoveDone} {
		p := look(time.Second, phase, 1000)
		if p.done <= last {
			t.Errorf("%s: %v after %v", phase, p.done, last)
		}
		last = max(last, p.done-0.001)
	}
	if len(r.known) != 0 {
		t.Errorf("what has ended is kept: %v", r.known)
	}
	look(0, metadata.MoveReversing, 900)
	m.Back = true // rolled back: another way, another bar
	if p := look(0, metadata.MoveFollowing, 900); p.done != 0.85 {
		t.Errorf("rolled back: %+v", p)
	}
	look(0, metadata.MoveCopying, 900)
	if p := look(0, metadata.MoveAborting, 900); p.done != 0 {
		t.Errorf("given up: %+v", p)
	}
}

// TestShardClasses: what a shard's cell says.
func TestShardClasses(t *testing.T) {
	up := failover.NodeStatus{Address: "a", Role: failover.RolePrimary, Health: failover.Up}
	away := failover.NodeStatus{ID: 1, Address: "b", Role: failover.RoleReplica, Health: failover.Down, Reason: "does not answer"}
	for name, c := range map[string]struct {
		shard      Shard
		class, why string
	}{
		"well":       {Shard{Nodes: &failover.Snapshot{Nodes: []failover.NodeStatus{up}}}, "good", ""},
		"a replica":  {Shard{Nodes: &failover.Snapshot{Nodes: []failover.NodeStatus{up, away}}}, "warn", "b is down: does not answer"},
		"no primary": {Shard{Nodes: &failover.Snapshot{Primary: failover.NoNode, NoPrimary: "why", Nodes: []failover.NodeStatus{away}}}, "bad", "no primary: why"},
	} {
		if got := shardOf("d", &c.shard, nil, clockAt()); got.Class != c.class || got.Why != c.why {
			t.Errorf("%s: %s %q", name, got.Class, got.Why)
		}
	}
}

// contract lists the parts of docs/dashboard.md with their types.
func contract() []struct {
	path string
	of   any
} {
	return []struct {
		path string
		of   any
	}{
		{"status", apiStatus{}}, {"slots", apiSlots{}}, {"moves", apiMoves{}}, {"proxies", apiProxies{}}, {"doubts", apiDoubts{}}, {"events", apiEvents{}}, {"statements", apiStatements{}}, {"history", apiHistory{}},
	}
}

// TestDashboardPage: docs/dashboard.md defines every field of the contract.
func TestDashboardPage(t *testing.T) {
	for _, c := range contract() {
		checkPage(t, "../docs/dashboard.md", c.path, "\n| field | meaning |\n| --- | --- |\n"+fieldRows(t, reflect.TypeOf(c.of), "")+"\n")
	}
	var names strings.Builder
	for _, n := range seriesNames() {
		fmt.Fprintf(&names, "`%s`\n", n)
	}
	page, err := os.ReadFile("../docs/dashboard.md")
	if err != nil {
		t.Fatal(err)
	}
	for n := range strings.Lines(names.String()) {
		if !strings.Contains(string(page), strings.TrimSpace(n)) {
			t.Errorf("docs/dashboard.md lacks the series %s", n)
		}
	}
}

// snake is how fields are called.
var snake = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

func fieldRows(t *testing.T, of reflect.Type, prefix string) string {
	var b strings.Builder
	for i := range of.NumField() {
		f := of.Field(i)
		name, doc := f.Tag.Get("json"), f.Tag.Get("doc")
		if !snake.MatchString(name) || doc == "" {
			t.Errorf("%s.%s: name %q, meaning %q", of, f.Name, name, doc)
		}
		inner, suffix := f.Type, ""
		if inner.Kind() == reflect.Slice {
			inner, suffix = inner.Elem(), "[]"
		}
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		fmt.Fprintf(&b, "| `%s%s` | %s |\n", prefix, name+suffix, cell(doc))
		if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
			b.WriteString(fieldRows(t, inner, prefix+name+suffix+"."))
		}
	}
	return b.String()
}
