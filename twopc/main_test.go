package twopc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a fact is waited for.
const patience = 20 * time.Second

// eventually waits for a fact.
func eventually(t *testing.T, what string, fact func() bool) {
	t.Helper()
	tick, deadline := time.NewTicker(2*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in %v: not %s", patience, what)
		}
	}
}

// fleet is a cluster of shards with a table "t" each. Clients are the role
// "buyer", the control user is "app", a member of it. The last shard's name
// cannot stand in a gid.
type fleet struct {
	t       *testing.T
	cluster string
	shards  []*server
	clients []*client
}

type server struct {
	name, database string
	node           *pgtest.Node
	root           *pgx.Conn // nil while it is not needed, or was lost
}

const roles = `DO $$ BEGIN CREATE ROLE buyer LOGIN; CREATE ROLE clerk; GRANT buyer, clerk TO app; GRANT clerk TO buyer;
	CREATE ROLE thief LOGIN; EXCEPTION WHEN duplicate_object THEN END $$`

// newFleet makes shards of databases of one server.
func newFleet(t *testing.T, shards int) *fleet {
	t.Helper()
	f := &fleet{t: t}
	for i := range shards {
		db := pgtest.Shared(t)
		f.shards = append(f.shards, &server{name: shardName(i, shards), database: db.Name, node: db.Node})
	}
	f.init()
	return f
}

// newServers makes shards that are servers of their own.
func newServers(t *testing.T, shards int) *fleet {
	t.Helper()
	f := &fleet{t: t}
	for i := range shards {
		c := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "20"}, MaxConnections: 30})
		f.shards = append(f.shards, &server{name: shardName(i, shards), database: "app", node: c.Primary()})
	}
	f.init()
	return f
}

func shardName(i, shards int) string {
	if i == shards-1 {
		return "it's: süd"
	}
	return fmt.Sprintf("s%d", i)
}

func (f *fleet) init() {
	f.t.Helper()
	o := metadata.Options{Database: "shop", Slots: 16}
	for _, s := range f.shards {
		s.node.Exec("postgres", roles)
		s.node.Exec(s.database, "CREATE TABLE t (id int PRIMARY KEY, owes int REFERENCES t DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON t TO buyer, clerk; GRANT ALL ON SCHEMA public TO buyer; GRANT CONNECT, TEMP ON DATABASE "+s.database+" TO PUBLIC")
		o.Shards = append(o.Shards, metadata.Shard{Name: s.name, Connect: s.control()})
	}
	r, err := metadata.Init(f.t.Context(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.cluster = r.Cluster.ID
	f.t.Cleanup(f.close)
}

// control leads to a shard as its control user.
func (s *server) control() metadata.Connect {
	return func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.Connect(ctx, s.node.DSN(s.database, "postgres")+"&role=app")
	}
}

func (f *fleet) close() {
	for _, c := range f.clients {
		c.close()
	}
	for _, s := range f.shards {
		s.forget()
	}
}

func (s *server) forget() {
	if s.root != nil {
		_ = s.root.Close(context.Background())
		s.root = nil
	}
}

// value is the only column of the only row; fast.
func (f *fleet) value(shard int, sql string) (v string) {
	f.t.Helper()
	s := f.shards[shard]
	var err error
	for range 2 { // the connection may be one from before the server was killed
		if s.root == nil {
			if s.root, err = s.node.Engine.Connect(context.Background(), s.database); err != nil {
				f.t.Fatal(err)
			}
		}
		if err = s.root.QueryRow(context.Background(), "SELECT ("+sql+")::text", pgx.QueryExecModeExec).Scan(&v); err == nil {
			return v
		}
		s.forget()
	}
	f.t.Fatalf("%s: %v", sql, err)
	return ""
}

func (f *fleet) do(shard int, sql string) {
	f.t.Helper()
	f.shards[shard].node.Exec(f.shards[shard].database, sql)
}

// client is a Conn of a test. Both hooks may be nil: before may send nothing and
// return an error instead, after may turn the server's answer into one.
type client struct {
	pg            *pgconn.PgConn
	shard         int
	before, after func(sql string) error

	mu  sync.Mutex
	log []string
}

func (c *client) Exec(ctx context.Context, sql string) error {
	c.mu.Lock()
	c.log = append(c.log, sql)
	c.mu.Unlock()
	if c.before != nil {
		if err := c.before(sql); errors.Is(err, errDone) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // pgconn would keep the connection when nothing was sent
		c.cut()
		return ctx.Err()
	}
	_, err := c.pg.Exec(ctx, sql).ReadAll()
	err = metadata.Said(err)
	if c.after != nil {
		if err := c.after(sql); err != nil {
			return err
		}
	}
	return err
}

// errDone of a client's hook: nothing more is to be sent.
var errDone = errors.New("done")

// cut breaks the connection.
func (c *client) cut() { _ = c.pg.Conn().Close() }

func (c *client) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.pg.Close(ctx)
	<-c.pg.CleanupDone()
}

// client connects as the role buyer.
func (f *fleet) client(shard int) *client {
	f.t.Helper()
	s := f.shards[shard]
	pg, err := pgconn.Connect(f.t.Context(), s.node.DSN(s.database, "postgres"))
	if err != nil {
		f.t.Fatal(err)
	}
	c := &client{pg: pg, shard: shard}
	f.clients = append(f.clients, c)
	f.must(c, "SET SESSION AUTHORIZATION buyer")
	return c
}

func (f *fleet) must(c *client, sql string) {
	f.t.Helper()
	if err := c.Exec(f.t.Context(), sql); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

// begin begins a transaction that has written the row id on every shard.
func (f *fleet) begin(id int) ([]Part, []*client) {
	f.t.Helper()
	var parts []Part
	var clients []*client
	for i, s := range f.shards {
		c := f.client(i)
		f.must(c, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d)", id))
		parts, clients = append(parts, Part{s.name, c}), append(clients, c)
	}
	return parts, clients
}

// where says on which shards the row id is: "110" is on the first two.
func (f *fleet) where(id int) (on string) {
	f.t.Helper()
	for i := range f.shards {
		on += f.value(i, fmt.Sprintf("SELECT count(*) FROM t WHERE id = %d", id))
	}
	return on
}

// prepared counts the prepared transactions of the cluster on all shards.
func (f *fleet) prepared() (n int) {
	f.t.Helper()
	for i := range f.shards {
		var one int
		fmt.Sscan(f.value(i, "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"), &one)
		n += one
	}
	return n
}

// settled waits until nothing is prepared.
func (f *fleet) settled() {
	f.t.Helper()
	eventually(f.t, "everything is finished", func() bool { return f.prepared() == 0 })
}

// options are those of a resolver that is impatient.
func (f *fleet) options() ResolverOptions {
	o := ResolverOptions{Database: "shop", Cluster: f.cluster, Interval: 50 * time.Millisecond, MinAge: 50 * time.Millisecond,
		Timeout: 2 * time.Second, Logger: slog.New(slog.DiscardHandler)}
	for _, s := range f.shards {
		o.Shards = append(o.Shards, Shard{Name: s.name, Connect: s.control()})
	}
	return o
}

// resolver returns one that is open.
func (f *fleet) resolver(o ResolverOptions) *Resolver {
	f.t.Helper()
	r := f.closed(o)
	if err := r.Open(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = r.Close() })
	return r
}

// closed returns one that is not open: the test calls its rounds.
func (f *fleet) closed(o ResolverOptions) *Resolver {
	f.t.Helper()
	r, err := NewResolver(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// round is one round of a closed resolver.
func (f *fleet) round(r *Resolver) {
	r.round(context.Background())
	for i := range r.sessions {
		r.drop(i)
	}
}

// rounds are rounds of a closed resolver until nothing is prepared: a server may not have seen yet
// that a connection is gone.
func (f *fleet) rounds(r *Resolver) {
	f.t.Helper()
	eventually(f.t, "everything is finished", func() bool { f.round(r); return f.prepared() == 0 })
}

func (f *fleet) commit(ctx context.Context, r *Resolver, parts []Part) (Outcome, *wire.Error) {
	f.t.Helper()
	outcome, err := Commit(ctx, Options{Cluster: f.cluster, Resolver: r, Logger: slog.New(slog.DiscardHandler)}, parts)
	if err == nil {
		return outcome, nil
	}
	var said *wire.Error
	if !errors.As(err, &said) || said.IsFatal() {
		f.t.Errorf("%v is nothing to tell a client whose session goes on", err)
	}
	return outcome, said
}

// wrong says what is wrong with an outcome when a row is where it is, or "".
// It is what every test of faults judges by.
func wrong(outcome Outcome, on string) string {
	all, none := strings.Repeat("1", len(on)), strings.Repeat("0", len(on))
	switch {
	case on != all && on != none:
		return "half a transaction: " + on
	case outcome == Committed && on != all:
		return "acknowledged and lost: " + on
	case outcome == RolledBack && on != none:
		return "refused and there: " + on
	}
	return ""
}
