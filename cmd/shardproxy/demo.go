package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"shardproxy/internal/pgcluster"
	"shardproxy/query"
	"shardproxy/testdata/sql"
)

func demoCommand() *cobra.Command {
	var listen, adminAddress string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Start two shards of real PostgreSQL servers in a temporary folder and the proxy in front of them",
		Long: "Demo starts two shards, each a primary and a streaming replica, with the\n" +
			"order-processing schema, and the proxy. Ctrl-C ends everything and leaves\n" +
			"nothing behind.\n\n" +
			"PostgreSQL's server programs are searched for; " + pgcluster.BinDirVariable + " names\n" +
			"their folder. Started as root, the servers run as the user postgres.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
			defer stop()
			d := &demo{listen: listen, admin: adminAddress, out: cmd.OutOrStdout()}
			err := d.run(ctx)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:6432", "address for clients")
	c.Flags().StringVar(&adminAddress, "admin", "127.0.0.1:9127", "address for operators")
	return c
}

// demo is servers and a proxy that end together.
type demo struct {
	listen, admin, config string
	out                   io.Writer

	dirs   []string // of the shards; the proxy's files are in the first
	shards []*pgcluster.Cluster
	orders int64
}

// demoPassword guards rows that anybody can make again.
const demoPassword = pgcluster.AppPassword

func (d *demo) run(ctx context.Context) error {
	begun := time.Now()
	if err := d.ready(); err != nil {
		return err
	}
	bin, err := pgcluster.FindBinaries()
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "starting PostgreSQL %s: two shards, each a primary and a streaming replica, and a spare server ...\n", bin.Version)
	defer d.remove()
	if err := d.start(ctx, bin); err != nil {
		return err
	}
	path, err := d.configure(demoShards)
	if err != nil {
		return err
	}
	if err := d.init(ctx, path); err != nil {
		return err
	}
	if path, err = d.configure(len(d.shards)); err != nil { // the spare one joins when it is told to
		return err
	}
	log, err := os.Create(filepath.Join(d.dirs[0], "shardproxy.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := newProgram(path, log)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.open(ctx); err != nil {
		return err
	}
	if err := d.fill(ctx); err != nil {
		return fmt.Errorf("fill the demo database: %w", err)
	}
	if err := d.greet(log.Name(), begun); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(d.out)
	return nil
}

// start makes the shards.
func (d *demo) start(ctx context.Context, bin pgcluster.Binaries) error {
	for i := range demoShards + 1 {
		dir, err := pgcluster.OwnFolder("shardproxy-demo-")
		if err != nil {
			return err
		}
		d.dirs = append(d.dirs, dir)
		replicas := 1
		if i == demoShards {
			replicas = 0
		}
		d.shards = append(d.shards, pgcluster.New(pgcluster.Options{
			Replicas: replicas, Binaries: bin, Parent: dir, OwnParent: true,
			Settings: map[string]string{"max_prepared_transactions": "100", "wal_level": "logical"},
		}))
	}
	all, ctx := errgroup.WithContext(ctx)
	for _, c := range d.shards {
		all.Go(func() error { return c.Open(ctx) })
	}
	return all.Wait()
}

// demoShards is how many shards there are at first. One server more may join.
const demoShards = 2

// remove ends the servers and removes what they have made.
func (d *demo) remove() {
	fmt.Fprintln(d.out, "removing the servers ...")
	for _, c := range d.shards {
		if err := c.Close(); err != nil {
			fmt.Fprintln(d.out, "left behind:", err)
		}
	}
}

// init makes the slot map on the shards.
func (d *demo) init(ctx context.Context, path string) error {
	c := initCommand()
	var said strings.Builder
	c.SetOut(&said)
	c.SetErr(&said)
	c.SetArgs([]string{"-c", path})
	if err := c.ExecuteContext(ctx); err != nil {
		return fmt.Errorf("init: %w\n%s", err, said.String())
	}
	return nil
}

// ready tells what is in the way before anything has been made.
func (d *demo) ready() error {
	for flag, address := range map[string]string{"--listen": d.listen, "--admin": d.admin} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("%w; choose another address with %s host:port", err, flag)
		}
		_ = l.Close() // nobody has connected
	}
	return nil
}

// fill creates the order-processing schema and its rows, through the proxy. The rows are
// made in a database beside it, which is dropped then.
func (d *demo) fill(ctx context.Context) error {
	node := d.shards[0].Primary()
	const scratch = "seed"
	admin, err := node.Connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+scratch+" OWNER "+pgcluster.AppUser); err != nil {
		return err
	}
	from, err := pgx.Connect(ctx, node.DSN(scratch, pgcluster.AppUser))
	if err != nil {
		return err
	}
	defer from.Close(ctx)
	to, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer to.Close(ctx)
	for _, text := range []string{sql.Schema(), sql.Seed()} {
		if _, err := from.PgConn().Exec(ctx, text).ReadAll(); err != nil {
			return err
		}
	}
	schema := sql.Schema()
	for _, st := range query.Split([]byte(schema)) {
		// One after the other, for each may name what is made by those before it.
		if _, err := to.Exec(ctx, schema[st.Start:st.End], pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	for _, table := range []string{"products", "customers", "orders", "order_items"} {
		n, err := copyTable(ctx, from, to, table)
		if err != nil {
			return fmt.Errorf("table %s: %w", table, err)
		}
		if table == "orders" {
			d.orders = n
		}
	}
	if err := from.Close(ctx); err != nil {
		return err
	}
	_, err = admin.Exec(ctx, "DROP DATABASE "+scratch+" WITH (FORCE)")
	return err
}

// copyTable copies the rows of a table and returns how many there are.
func copyTable(ctx context.Context, from, to *pgx.Conn, table string) (int64, error) {
	r, w := io.Pipe()
	go func() {
		_, err := from.PgConn().CopyTo(ctx, w, "COPY "+table+" TO STDOUT")
		w.CloseWithError(err)
	}()
	tag, err := to.PgConn().CopyFrom(ctx, r, "COPY "+table+" FROM STDIN")
	r.CloseWithError(err)
	return tag.RowsAffected(), err
}

// connect connects through the proxy, once it knows the shards.
func (d *demo) connect(ctx context.Context) (*pgx.Conn, error) {
	for tries := 0; ; tries++ {
		conn, err := pgx.Connect(ctx, d.dsn())
		if err == nil {
			if _, err = conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS public"); err == nil {
				return conn, nil
			}
			_ = conn.Close(ctx) // it was of no use
		}
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P03" || tries == 100 {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *demo) dsn() string { return fmt.Sprintf("postgres://app:%s@%s/app", demoPassword, d.listen) }

// configure writes the proxy's files, for so many shards, into the folder.
func (d *demo) configure(n int) (string, error) {
	var shards strings.Builder
	for i, c := range d.shards[:n] {
		var nodes []string
		for _, n := range c.Nodes() {
			nodes = append(nodes, fmt.Sprintf("%q", n.Addr()))
		}
		fmt.Fprintf(&shards, "      - {name: s%d, nodes: [%s]}\n", i, strings.Join(nodes, ", "))
	}
	password := filepath.Join(d.dirs[0], "app.password")
	if err := os.WriteFile(password, []byte(demoPassword+"\n"), 0o600); err != nil {
		return "", err
	}
	text := fmt.Sprintf(`listen: {address: %q}
admin:  {address: %q, admin_users: [app]}
users:
  - {name: app, password_file: %q}
databases:
  app:
    shards:
%s    server:
      control: {user: postgres}
    tables:
      customers:   {key: id}
      orders:      {key: customer_id}
      order_items: {key: customer_id}
      products:    {reference: true}
    functions:
      spent_since: {argument: 1, table: orders}
      place_order: {argument: 1, table: orders}
`, d.listen, d.admin, password, shards.String())
	d.config = filepath.Join(d.dirs[0], "shardproxy.yaml")
	return d.config, os.WriteFile(d.config, []byte(text), 0o600)
}

// greet says how to go on.
func (d *demo) greet(log string, begun time.Time) error {
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, `
ready after %.1f s: %d orders on %d shards behind the proxy

  DSN      %s
  psql     PGPASSWORD=%s psql -h %s -p %s -U app app
  query    SELECT status, count(*) FROM orders WHERE customer_id = 42 GROUP BY status ORDER BY status;
  both     SELECT p.name, sum(i.quantity) FROM order_items i JOIN products p ON p.id = i.product_id GROUP BY 1 ORDER BY 2 DESC LIMIT 3;
  route    EXPLAIN (ROUTE) SELECT * FROM orders JOIN order_items USING (customer_id) WHERE customer_id = 42;
  move     shardproxy rebalance start -c %s --move-tenant orders.customer_id=42 --to s0; shardproxy rebalance watch -c %s
  grow     shardproxy rebalance start -c %s --add s2 --step-slots 400; shardproxy rebalance watch -c %s
  console  PGPASSWORD=%s psql -h %s -p %s -U app shardproxy -c 'SHOW NODES'
  admin    http://%s/ (app, %s)
  log      %s

`, time.Since(begun).Seconds(), d.orders, demoShards, d.dsn(), demoPassword, host, port, d.config, d.config, d.config, d.config, demoPassword, host, port, d.admin, demoPassword, log)
	d.nodes()
	fmt.Fprint(d.out, "\nCtrl-C ends everything.\n")
	return nil
}

// nodes says where the servers are and how to make one fail.
func (d *demo) nodes() {
	for i, c := range d.shards {
		for _, n := range c.Nodes() {
			what := n.Name()
			if i >= demoShards {
				what = "spare"
			}
			fmt.Fprintf(d.out, "  s%d %-8s %s, process %d, data in %s\n", i, what, n.Addr(), n.PID(), n.DataDir())
		}
	}
	c := d.shards[demoShards-1]
	promote := fmt.Sprintf("%s promote -D %s", c.Binaries().Path("pg_ctl"), c.Replicas()[0].DataDir())
	if account := c.Account(); account != "" {
		promote = fmt.Sprintf("su -s /bin/sh %s -c '%s'", account, promote)
	}
	fmt.Fprintf(d.out, `
To see writes of one shard wait for a new primary:
  kill the primary   kill -9 %d
  promote a replica  %s
`, c.Primary().PID(), promote)
}
