package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

// spare fails unless the shard s3 of the options, which the map does not have, is warned of and left alone.
func (f *fleet) spare(t *testing.T) {
	t.Helper()
	st, err := Check(t.Context(), f.opts)
	if err != nil || !slices.Equal(st.Spare, []string{"s3"}) || slices.Contains(st.Behind, "s3") || len(st.Unchecked) > 0 {
		t.Fatalf("%+v, %v", st, err)
	}
	r, err := Init(t.Context(), f.opts)
	if err != nil || len(r.Steps) > 0 {
		t.Fatalf("%v, %v", r, err)
	}
	for _, all := range [][]*Problem{st.Warnings, r.Warnings} {
		if !slices.ContainsFunc(all, func(p *Problem) bool {
			return p.Shard == "s3" && errors.Is(p, ErrMismatch) && strings.Contains(p.Hint, "rebalance start --add s3")
		}) {
			t.Errorf("no warning: %v", all)
		}
	}
}

// TestJoinAndLeave prepares a server to be a shard, and goes through what is stored when it becomes one, and when it is none any more.
func TestJoinAndLeave(t *testing.T) {
	f := madeFleet(t, 2)
	fresh := pgtest.Shared(t)
	f.opts.Shards = append(f.opts.Shards, Shard{Name: "s2", Connect: to(fresh.DSN("app"))}, Shard{Name: "s3", Connect: to(fresh.DSN("nowhere"))})
	f.opts.Join = []string{"s2"}
	r := mustInit(t, f.opts)
	if len(r.Steps) != 2 || r.Steps[0].Shard != "s2" || !slices.Equal(r.Map.Shards(), []string{"s0", "s1"}) {
		t.Fatalf("%v", r)
	}
	if r = mustInit(t, f.opts); len(r.Steps) > 0 {
		t.Errorf("again: %v", r)
	}
	f.opts.Join = nil
	st, err := Check(t.Context(), f.opts)
	if err != nil || !slices.Equal(st.Spare, []string{"s2", "s3"}) {
		t.Fatalf("%+v, %v", st, err)
	}
	home := f.dbs[0].Connect("app")
	plan := func(moves ...Move) error { return PlanMoves(t.Context(), home, st.Map.Epoch(), moves) }
	for _, bad := range []Move{
		{Kind: MoveJoin, Source: "s1", Target: "s2"}, {Kind: MoveJoin, Source: "s0", Target: "s1"}, {Kind: MoveLeave, Source: "s0", Target: "s0"},
		{Kind: MoveLeave, Source: "s2", Target: "s0"}, {Slots: st.Map.SlotsOf("s1")[:1], Source: "s1", Target: "s2"},
	} {
		if err := plan(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := plan(Move{Kind: MoveJoin, Source: "s0", Target: "s2"}, Move{Slots: st.Map.SlotsOf("s1"), Source: "s1", Target: "s2"}, Move{Kind: MoveLeave, Source: "s1", Target: "s0"}); err != nil {
		t.Fatal(err)
	}
	moves, err := Moves(t.Context(), home, false)
	if err != nil || len(moves) != 3 || moves[0].Kind != MoveJoin || moves[0].Maker != 2 || moves[1].Kind != MoveSlots || moves[2].Kind != MoveLeave {
		t.Fatalf("%+v, %v", moves, err)
	}
	now := st.Map
	if _, err := Flipped(now, moves[0]); !errors.Is(err, ErrConflict) {
		t.Errorf("joined while writes go on: %v", err)
	}
	change := func(next *shardmap.Map, err error) {
		t.Helper()
		if err == nil {
			err = Change(t.Context(), home, now.Epoch(), next)
		}
		if err != nil {
			t.Fatal(err)
		}
		if now, _, err = Load(t.Context(), home); err != nil || now.Closed() != next.Closed() || !slices.Equal(now.Shards(), next.Shards()) {
			t.Fatalf("%v, %v", now, err)
		}
	}
	change(now.Close(now.Epoch()+1, true), nil)
	change(Flipped(now, moves[0]))
	if !now.Closed() || !slices.Equal(now.Shards(), []string{"s0", "s1", "s2"}) {
		t.Errorf("%v", now.Shards())
	}
	change(now.Close(now.Epoch()+1, false), nil)
	if _, err := Flipped(now, moves[2]); !errors.Is(err, ErrConflict) {
		t.Errorf("left with slots: %v", err)
	}
	rows := now.Rows()
	for i := range rows {
		rows[i].Shard = []string{"s0", "s2"}[i%2]
	}
	change(now.Next(rows))
	if _, err := Flipped(now, moves[2]); !errors.Is(err, ErrConflict) {
		t.Errorf("left while writes go on: %v", err)
	}
	change(now.Close(now.Epoch()+1, true), nil)
	change(Flipped(now, moves[2]))
	if !now.Closed() || !slices.Equal(now.Shards(), []string{"s0", "s2"}) {
		t.Errorf("%v", now.Shards())
	}
	// Numbers of unique ids are never given again, nor is the one that a server has replaced.
	if _, err := AbortMoves(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	f.dbs[0].Exec("UPDATE shardproxy.moves SET phase = 'aborted'")
	if err := PlanMoves(t.Context(), home, now.Epoch(), []Move{{Kind: MoveJoin, Source: "s0", Target: "s3"}}); err != nil {
		t.Fatal(err)
	}
	if moves, err = Moves(t.Context(), home, false); err != nil || moves[0].Maker != 3 {
		t.Errorf("%+v, %v", moves, err)
	}
	conn := pgtest.Connect(t, fresh.DSN("app"))
	for _, number := range []int{2, 7} {
		if err := SetMaker(t.Context(), conn, number); err != nil {
			t.Fatal(err)
		}
		if got := fresh.Value("SELECT number FROM shardproxy.maker"); got != fmt.Sprint(UniqueProxies+2) {
			t.Errorf("its number is %s", got)
		}
	}
}

// TestJoinRefused refuses servers that cannot be shards, before anything is written.
func TestJoinRefused(t *testing.T) {
	f, other := madeFleet(t, 2), madeFleet(t, 1)
	f.opts.Join = []string{"s2"}
	for _, c := range []struct {
		connect Connect
		kind    error
	}{
		{f.opts.Shards[1].Connect, ErrSameDatabase}, {other.opts.Shards[0].Connect, ErrOtherCluster}, {to("host=127.0.0.1 port=1 user=nobody"), ErrUnreachable},
	} {
		g := *f
		g.opts.Shards = append(slices.Clone(f.opts.Shards), Shard{Name: "s2", Connect: c.connect})
		before := f.state()
		if _, err := Init(t.Context(), g.opts); !errors.Is(err, c.kind) {
			t.Errorf("%v, want %v", err, c.kind)
		}
		if f.state() != before {
			t.Error("something was written")
		}
	}
}
