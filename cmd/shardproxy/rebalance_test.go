package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// planSchema is what plans are made of, beside shardedSchema.
const planSchema = `CREATE TABLE regions (name text PRIMARY KEY, n int); CREATE SCHEMA tenant_a; CREATE SCHEMA tenant_b;
	CREATE TABLE tenant_a.t (id int PRIMARY KEY); CREATE TABLE tenant_b.t (id int PRIMARY KEY);
	CREATE TABLE visits (customer_id bigint, at date, PRIMARY KEY (customer_id, at)) PARTITION BY RANGE (at);
	CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
	CREATE TABLE visits_new PARTITION OF visits DEFAULT`

const planRules = `      regions:     {key: name, list: {s0: [eu], s2: [us]}}
      visits:      {key: customer_id}
    schemas: {tenant_a: hash, tenant_b: s2}
    slots: 64`

// startPlanned makes three shards with rows: of customer 42 there are as many orders as of all others.
func startPlanned(t *testing.T) *shardedProgram {
	s := startShardsOf(t, 3, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}}, planRules)
	s.onEachRun(planSchema)
	c := s.connectLoaded()
	rows := func(table string, columns []string, n int, row func(i int) []any) {
		t.Helper()
		if got, err := c.CopyFrom(t.Context(), pgx.Identifier{table}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) { return row(i), nil })); err != nil || int(got) != n {
			t.Fatalf("%s: %d rows, %v", table, got, err)
		}
	}
	rows("customers", []string{"id", "name"}, 6000, func(i int) []any { return []any{int64(i), "customer"} })
	rows("orders", []string{"id", "customer_id", "note"}, 12000, func(i int) []any {
		if i%2 == 0 {
			return []any{int64(i), int64(42), "hot"}
		}
		return []any{int64(i), int64(i / 2), "some"}
	})
	s.onEachRun("ANALYZE")
	return s
}

// onEachRun runs statements on each shard, past the proxy.
func (s *shardedProgram) onEachRun(sql string) {
	s.t.Helper()
	for i := range s.shards {
		s.direct(i, sql)
	}
}

// plans calls rebalance plan.
func (s *shardedProgram) plans(args ...string) outcome {
	s.t.Helper()
	return call(s.t, "", append([]string{"rebalance", "plan", "-c", s.path}, args...)...)
}

var (
	planSizes  = regexp.MustCompile(`\b\d+ (bytes|kB|MB)`)
	planTimes  = regexp.MustCompile(`about \d+s`)
	planBlanks = regexp.MustCompile(`(\S) {2,}`)
	planPlaces = regexp.MustCompile(`(/|127\.0\.0\.1:\d+)\S*`)
)

// plain is an output without what differs between servers: sizes, and the widths of columns.
func plain(o outcome) string {
	out := planSizes.ReplaceAllString(o.out, "SIZE")
	out = planTimes.ReplaceAllString(out, "about TIME")
	return planBlanks.ReplaceAllString(out, "$1  ") + planPlaces.ReplaceAllString(o.err, "PLACE") + fmt.Sprintf("exit code %d\n", o.code)
}

// TestRebalancePlan runs testdata/rebalanceplan.txt: commands, and what they print.
//
//	plan <flags>
//	sql shard=n       (runs the statements below there; without shard, on all)
func TestRebalancePlan(t *testing.T) {
	t.Parallel()
	s := startPlanned(t)
	datadriven.RunTest(t, "testdata/rebalanceplan.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "plan":
			before := s.state()
			out := plain(s.plans(strings.Fields(d.Input)...))
			if after := s.state(); after != before {
				t.Errorf("a plan has written: %s, before: %s", after, before)
			}
			return out
		case "sql":
			if !d.HasArg("shard") {
				s.onEachRun(d.Input)
				return ""
			}
			var i int
			d.ScanArgs(t, "shard", &i)
			s.direct(i, d.Input)
			return ""
		}
		t.Fatalf("no command %q", d.Cmd)
		return ""
	})
	s.plansJSON()
	s.shards[1].Primary().Stop()
	if o := s.plans(); o.code != 2 || !strings.Contains(o.err, "s1") || o.out != "" {
		t.Errorf("a shard is away: %+v", o)
	}
	s.shards[1].Primary().Start()
}

// state is what the cluster's schema says, and what replication has, of all shards.
func (s *shardedProgram) state() string {
	s.t.Helper()
	var all []string
	for i, n := range s.primaries() {
		all = append(all, n.Value("app", `SELECT concat((SELECT epoch FROM shardproxy.epoch), (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_publication),
			(SELECT count(*) FROM pg_class), (SELECT count(*) FROM customers), (SELECT count(*) FROM orders))`))
		if i == 0 {
			all = append(all, n.Value("app", "SELECT md5(string_agg(s::text, ',' ORDER BY slot)) FROM shardproxy.slots s"))
		}
	}
	return strings.Join(all, " ")
}

// plansJSON reads the other form.
func (s *shardedProgram) plansJSON() {
	s.t.Helper()
	o := s.plans("--add", "s3=10.0.0.9:5432", "--json", "--by", "rows", "--exact", "--threshold", "0%")
	var r planReport
	if err := json.Unmarshal([]byte(o.out), &r); err != nil {
		s.t.Fatalf("%v: %+v", err, o)
	}
	var slots int
	var rows int64
	for _, m := range r.Moves {
		slots += len(m.Slots)
		rows += m.Rows
	}
	if len(r.Shards) != 4 || r.Shards[3].State != "joins" || slots != r.Moved.Slots || rows != r.Moved.Rows || rows != r.Shards[3].Then.Rows+movedBetween(&r, "s3") || !r.Counted || r.By != "rows" {
		s.t.Errorf("%d slots, %d rows, %+v", slots, rows, r)
	}
	var now, then int64
	for _, sh := range r.Shards {
		now += sh.Now.Rows
		then += sh.Then.Rows
	}
	if now != then || now != 6000+12000 {
		s.t.Errorf("%d rows now, %d afterwards", now, then)
	}
}

// movedBetween is how many rows go elsewhere than to a shard.
func movedBetween(r *planReport, to string) (rows int64) {
	for _, m := range r.Moves {
		if m.To != to {
			rows += m.Rows
		}
	}
	return rows
}

// TestRebalanceFlags are calls that say nothing.
func TestRebalanceFlags(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	for _, c := range []struct {
		args string
		want string
	}{
		{"--to s1", "--to needs"},
		{"--slots 1", "need --to"},
		{"--slots 1 --to s1 --remove s1", "--remove does not go with"},
		{"--slots 1 --to s1 --by rows", "--by does not go with"},
		{"--slots 1-x --to s1", `"1-x" is neither`},
		{"--slots 4096 --to s1", "no slot 4096: they are 0 to 4095"},
		{"--slots 9-3 --to s1", `"9-3" is neither`},
		{"--slots 1 --to s9", `no shard "s9"`},
		{"--add s3", "want a name and where"},
		{"--add s1=h:1", "there is a shard of this name"},
		{"--add s3=h:1 --add s3=h:2", "there is a shard of this name"},
		{"--remove s9", "there is no such shard"},
		{"--weight s9=2", "there is no such shard"},
		{"--weight s1=0", "above 0"},
		{"--weight s1=2 --remove s1", "it is to leave"},
		{"--weight s1=2000", "weight 2000, want 1 to 1000"},
		{"--by colour", "none of slots, rows and bytes"},
		{"--threshold x", "less than 100%"},
		{"--threshold 100%", "less than 100%"},
		{"--rate 5apples", "is not a size"},
		{"--rate 0", "more than 0"},
		{"--move-tenant orders --to s1", "want a table, the column"},
		{"--move-tenant orders.customer_id --to s1", "want a table, the column"},
		{"--move-tenant o.r.d.s=1 --to s1", "want a table, the column"},
		{`--move-tenant "or.x=1 --to s1`, "has no end"},
		{"--move-tenant .x=1 --to s1", "a name is missing"},
		{"--move-tenant nothing.x=1 --to s1", "no table nothing that is sharded by hash"},
		{"--move-tenant products.id=1 --to s1", "no table products that is sharded by hash"},
		{"--move-tenant other.orders.customer_id=1 --to s1", "no table orders that is sharded by hash"},
		{"--move-tenant orders.id=1 --to s1", "the key of orders is (customer_id)"},
		{"--move-tenant orders.customer_id=x --to s1", "invalid input syntax"},
		{"more", "unknown command"},
	} {
		o := s.plans(strings.Fields(c.args)...)
		if o.code != 1 || o.out != "" || !strings.Contains(o.err, c.want) {
			t.Errorf("%s: %+v, want %q", c.args, o, c.want)
		}
	}
	for _, args := range [][]string{{"--move-tenant", `PUBLIC."orders".Customer_ID=42`, "--to", "s1"}, {"--rate", "5MB/s", "--threshold", "2.5%", "--step-bytes", "1GB"}} {
		if o := s.plans(args...); o.code != 0 {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := s.plans("-c", s.path+".none"); o.code != 2 {
		t.Errorf("%+v", o)
	}
}

func TestPlanWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 10239: "10239 bytes", 10240: "10 kB", 10 << 20: "10 MB", 5 << 40: "5120 GB", 1 << 62: "4096 PB"} {
		if got := prettySize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for part, want := range map[float64]string{0: "0 %", 0.05: "5 %", 1.0 / 3: "33.3 %", 2: "200 %"} {
		if got := percent(part); got != want {
			t.Errorf("%v: %s, want %s", part, got, want)
		}
	}
	for text, want := range map[string]string{`a.b=c=d"e`: `[a b] =c=d"e`, `"A.""x".B=`: `[A."x b] =`, "A": "[A] "} {
		names, rest, err := parseNames(text)
		if got := fmt.Sprint(names, " ", rest); err != nil || got != strings.Replace(want, "[A] ", "[a] ", 1) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}
