package admin

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/metadata"
)

// setCluster changes what is known of the cluster of shop.
func (w *world) setCluster(change func(*Cluster)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.cluster)
}

// awaitLooks returns when the cluster was asked for n times more.
func (w *world) awaitLooks(n int) {
	looked := func() int { w.mu.Lock(); defer w.mu.Unlock(); return w.looked }
	for from := looked(); looked() < from+n; {
		runtime.Gosched()
	}
}

// TestStatesOfShards: a shard that is no member, joins or leaves is told apart.
func TestStatesOfShards(t *testing.T) {
	s := newSite(t)
	s.world.databases[0].Shards = append(s.world.databases[0].Shards, Shard{Name: "s1", Nodes: s.world.databases[0].Shards[0].Nodes})
	expect(t, shown(t, s, "SHARDS", "shard", "s1"), "home=0; state=leaves; slots=100; slots_held=0; slots_coming=4; slots_going=0; in_doubt=1")
	s.world.setCluster(func(k *Cluster) { k.Members, k.Owners, k.Moves = []string{"s0"}, k.Owners[1:], nil })
	expect(t, shown(t, s, "SHARDS", "shard", "s1"), "state=spare; slots=0")
	s.world.setCluster(func(k *Cluster) { k.Moves = []metadata.Move{{Kind: metadata.MoveJoin, Target: "s1", Source: "s0"}} })
	expect(t, shown(t, s, "SHARDS", "shard", "s1"), "state=joins")
	s.world.setCluster(func(k *Cluster) { *k = Cluster{Error: "no map", At: k.At} })
	expect(t, shown(t, s, "SHARDS", "shard", "s1"), "state=unknown; slots=NULL; slots_held=NULL")
}

// TestReadingsAreAwaited: SHOW MOVES has what was read a moment ago, and says what could not be.
func TestReadingsAreAwaited(t *testing.T) {
	s := newSite(t)
	cfg, err := pgx.ParseConfig(s.dsn("ops"))
	if err != nil {
		t.Fatal(err)
	}
	notices := make(chan *pgconn.Notice, 4)
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n }
	cfg.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	show := func() int64 {
		t.Helper()
		tag, err := c.Exec(t.Context(), "SHOW MOVES")
		if err != nil || !strings.HasPrefix(tag.String(), "SHOW") {
			t.Fatal(tag, err)
		}
		return int64(len(notices))
	}
	if show() != 0 {
		t.Error("a fresh reading has a notice:", (<-notices).Detail)
	}
	s.world.setCluster(func(k *Cluster) { k.At = time.Time{} })
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.world.awaitLooks(3)
		s.world.setCluster(func(k *Cluster) { k.At = time.Now() })
	}()
	if show() != 0 {
		t.Error("the first reading has a notice:", (<-notices).Detail)
	}
	<-read // or the first reading was not awaited
	s.world.setCluster(func(k *Cluster) { k.Error = "s0 is down" })
	if show() != 1 {
		t.Fatal("what cannot be read is not told")
	}
	if n := <-notices; n.Severity != "WARNING" || n.Code != "01000" || !strings.Contains(n.Detail, "database shop: s0 is down; what is shown of it is of 2") {
		t.Errorf("%+v", n)
	}
	s.world.setCluster(func(k *Cluster) { k.Error, k.At = "", time.Time{} })
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "SHOW PROXIES")
		done <- err
	}()
	s.world.awaitLooks(2)
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("a cancelled SHOW PROXIES: %v", err)
	}
}
