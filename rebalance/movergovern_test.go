package rebalance

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
)

// TestPace says how moves share their rate.
func TestPace(t *testing.T) {
	limits := MoverLimits{CopyRate: 1000}
	m := NewMover(MoverOptions{Limits: func() MoverLimits { return limits }})
	rate := func(what string, want int64) {
		t.Helper()
		if got := m.throttle.Rate(); got != want {
			t.Errorf("%s: %d bytes a second, want %d", what, got, want)
		}
	}
	rate("at first", 1000)
	m.gives(1, 1)
	m.gives(2, 0.25)
	rate("the slowest of two", 250)
	m.gives(2, 0)
	rate("when it has ended", 1000)
	limits.CopyRate = 0
	m.gives(1, 1)
	rate("no bound", 0)
	m.gives(1, 0.5)
	rate("half of no bound", governUnbound/2)
}

// TestSlows says when a server has too much to do.
func TestSlows(t *testing.T) {
	for _, test := range []struct {
		name string
		is   governed
		of   MoverLimits
		want string
	}{
		{"nothing", governed{most: 100, active: 50}, MoverLimits{MaxLag: 100}, ""},
		{"half of what may connect", governed{most: 100, active: 51}, MoverLimits{}, "51 sessions of shard s1 run statements"},
		{"fewer", governed{most: 100, active: 11}, MoverLimits{MaxActive: 10}, "11 sessions"},
		{"a standby", governed{most: 100, lag: 2 << 20}, MoverLimits{MaxLag: 1 << 20}, "a standby of shard s1 is 2.0 MiB behind"},
		{"not looked at", governed{most: 100, lag: 2 << 20}, MoverLimits{}, ""},
	} {
		if got := test.is.slows("s1", &test.of); (got == "") != (test.want == "") || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

// TestGovernor looks at a real server: who follows it and what a slot keeps.
func TestGovernor(t *testing.T) {
	node := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"wal_level": "logical"}}).Primary()
	s := &MoverShard{Name: "s0", Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, node.DSN("app", "postgres")) }}
	r := &moving{m: NewMover(MoverOptions{Limits: func() MoverLimits { return MoverLimits{MaxWAL: 1} }}), move: &metadata.Move{ID: 7}, source: s, target: s}
	g := &governor{r: r, part: 1, names: []string{MoveObject("m7"), MoveObject("m7r")}}
	t.Cleanup(g.close)
	is, err := g.ask(t.Context(), 0, s)
	if err != nil || is.most == 0 || is.kept != 0 {
		t.Fatalf("%+v, %v", is, err)
	}
	g.look(t.Context())
	if v := r.verdict.Load(); v != nil || g.part != 1 {
		t.Errorf("%v, %v", v, g.part)
	}
	node.Exec("app", "SELECT pg_create_logical_replication_slot('shardproxy_move_m7r', 'pgoutput')")
	node.Exec("app", "CREATE TABLE governed AS SELECT generate_series(1, 1000)")
	g.look(t.Context())
	if v := r.verdict.Load(); v == nil || v.Cause != Behind || !strings.Contains(v.Error(), "shard s0 keeps ") {
		t.Errorf("%v", v)
	}
}
