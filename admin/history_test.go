package admin

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"shardproxy/gate"
	"shardproxy/histogram"
	"shardproxy/pool"
	"shardproxy/proxy"
)

// loaded is a database whose counters say n.
func loaded(name string, n int64) Database {
	var d histogram.Durations
	for range n % 1000 {
		d.Observe(200 * time.Microsecond)
	}
	return Database{Asked: []proxy.Asked{{Durations: d.Counts()}}, Name: name, Clients: int(n), Totals: proxy.DatabaseTotals{Statements: n, Errors: 2 * n},
		PoolTotals: pool.Totals{Assigned: n, WaitNanos: n * int64(time.Millisecond)}, Shards: []Shard{{Gate: gate.Stats{HeldNow: 3}}}}
}

func TestHistory(t *testing.T) {
	h, now := newHistory(), clockAt()
	take := func(dbs ...Database) {
		now = now.Add(sampleEach)
		h.take(dbs, []Pool{{Database: "a", Stat: pool.Stat{Waiting: 4}}, {Database: "unknown", Stat: pool.Stat{Waiting: 9}}}, now)
	}
	last := func(s apiSeries, name string) float64 { return s[name][len(s[name])-1] }
	take(loaded("a", 100))
	if p := h.page(0); len(p.At) != 0 || len(p.Total["clients"]) != 0 {
		t.Errorf("the first call is a sample: %v", p)
	}
	take(loaded("a", 200))
	p := h.page(0)
	if got := p.Total; len(p.At) != 1 || last(got, "statements_per_second") != 20 || last(got, "errors_per_second") != 40 || last(got, "lease_wait_seconds") != 0.001 ||
		last(got, "clients") != 200 || last(got, "clients_waiting") != 4 || last(got, "statements_held") != 3 ||
		last(got, "request_p50_seconds") != 0.000175 || last(got, "request_p99_seconds") < 0.000245 {
		t.Errorf("%+v", p)
	}
	// A database that comes says nothing of the time before, and one whose
	// counters began anew is counted from there.
	take(loaded("a", 50), loaded("b", 1_000_000))
	take(loaded("a", 50), loaded("b", 1_000_500))
	p = h.page(1)
	if got := p.Total["statements_per_second"]; len(got) != 2 || got[0] != 10 || got[1] != 100 {
		t.Errorf("of all: %v", got)
	}
	if got := h.page(0).Databases["b"]["statements_per_second"]; len(got) != 3 || !math.IsNaN(got[0]) || got[1] != 0 || got[2] != 100 {
		t.Errorf("of one that came: %v", got)
	}
	if got := h.page(0); !math.IsNaN(last(got.Databases["a"], "request_p95_seconds")) || last(got.Total, "request_p95_seconds") < 0.0002 {
		t.Errorf("%v %v", got.Databases["a"]["request_p95_seconds"], got.Total["request_p95_seconds"])
	}
	data, err := json.Marshal(p)
	if err != nil || !strings.Contains(string(data), `"sampled_at_unix_seconds":[17726`) || !strings.Contains(string(data), `[10,100]`) {
		t.Errorf("%v %s", err, data)
	}
	// One that goes is forgotten; time that stands still is no sample.
	take(loaded("b", 1_000_500))
	h.take(nil, nil, now)
	if p = h.page(0); p.Databases["a"] != nil || len(p.At) != 4 {
		t.Errorf("%d samples of %v", len(p.At), p.Databases)
	}
}

// TestHistoryIsBounded: an hour, and 32 databases.
func TestHistoryIsBounded(t *testing.T) {
	h, now := newHistory(), clockAt()
	var dbs []Database
	for i := range historyDatabases + 5 {
		dbs = append(dbs, loaded(string(rune('A'+i)), 1))
	}
	for i := range samplesKept + 20 {
		now = now.Add(sampleEach)
		for k := range dbs {
			dbs[k].Totals.Statements = int64(i * i)
		}
		h.take(dbs, nil, now)
	}
	p := h.page(0)
	if len(p.At) != samplesKept || len(p.Databases) != historyDatabases || p.KeptSamples != samplesKept {
		t.Errorf("%d samples of %d databases", len(p.At), len(p.Databases))
	}
	for i := 1; i < len(p.At); i++ {
		if p.At[i]-p.At[i-1] != sampleEach.Seconds() || p.Total["statements_per_second"][i] <= p.Total["statements_per_second"][i-1] {
			t.Fatalf("sample %d is not behind the one before", i)
		}
	}
	if p.At[len(p.At)-1] != float64(now.Unix()) {
		t.Error("the newest sample is not the last")
	}
	data, err := json.Marshal(p)
	if err != nil || len(data) > 6<<20 {
		t.Errorf("%v, %d bytes", err, len(data))
	}
}

func TestNumbers(t *testing.T) {
	got, err := json.Marshal(numbers{0, 1, 0.12345, 1234567.89, math.NaN(), math.Inf(1), 1e-9, 99.999})
	if err != nil || string(got) != "[0,1,0.1235,1234567.9,null,null,1e-09,100]" {
		t.Errorf("%s %v", got, err)
	}
}
