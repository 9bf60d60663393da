package twopc

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/faultproxy"
)

// testCutWhileListing: a shard's connection ends in the middle of the list of its prepared parts.
// What had come of the list is nothing that a round can carry out; the next one does.
func testCutWhileListing(t *testing.T, f *fleet) {
	shard := f.shards[1]
	between := faultproxy.Start(t, faultproxy.Options{Target: shard.node.Addr(), RefuseTLS: true})
	o := f.options()
	o.MinAge = 1
	o.Shards[1].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		config, err := pgx.ParseConfig(shard.node.DSN(shard.database, "postgres") + "&role=app")
		if err != nil {
			return nil, err
		}
		config.Port = uint16(between.Port())
		return pgx.ConnectConfig(ctx, config)
	}
	for id := range 2 {
		parts, clients := f.begin(id)
		point{step: "commit prepared", part: 1}.at(clients, func() error { clients[1].cut(); return errors.New("cut") })
		if outcome, err := f.commit(t.Context(), nil, parts); outcome != Committed {
			t.Fatal(outcome, err)
		}
	}
	if n := f.prepared(); n != 2 {
		t.Fatalf("%d parts are prepared", n)
	}
	r := f.closed(o)
	cut := between.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'D', Text: prefixOf(f.cluster), After: true, Do: faultproxy.CloseConn()})
	f.round(r)
	if s := r.Stats(); cut.Matches() != 1 || s.Shards[1].Err == nil || s.Shards[1].Failures != 1 || s.Committed != 0 || f.prepared() != 2 {
		t.Errorf("cut %d times, %d prepared, %+v", cut.Matches(), f.prepared(), s)
	}
	f.rounds(r)
	if a, b := f.where(0), f.where(1); a != "11" || b != "11" || r.Stats().Committed != 2 {
		t.Errorf("the rows are on %s and %s; %+v", a, b, r.Stats())
	}
}
