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
	"github.com/spf13/cobra"

	"shardproxy/internal/pgcluster"
	"shardproxy/testdata/sql"
)

func demoCommand() *cobra.Command {
	var listen, adminAddress string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Start a real PostgreSQL cluster in a temporary folder and the proxy in front of it",
		Long: "Demo starts a primary and two streaming replicas with the order-processing\n" +
			"schema, and the proxy. Ctrl-C ends everything and leaves nothing behind.\n\n" +
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

// demo is a cluster and a proxy that end together.
type demo struct {
	listen, admin string
	out           io.Writer
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
	dir, err := pgcluster.OwnFolder("shardproxy-demo-")
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "starting PostgreSQL %s: a primary and two streaming replicas ...\n", bin.Version)
	cluster := pgcluster.New(pgcluster.Options{Replicas: 2, Binaries: bin, Parent: dir, OwnParent: true})
	defer func() {
		fmt.Fprintln(d.out, "removing the cluster ...")
		if err := cluster.Close(); err != nil {
			fmt.Fprintln(d.out, "left behind:", err)
		}
	}()
	if err := cluster.Open(ctx); err != nil {
		return err
	}
	if err := d.fill(ctx, cluster); err != nil {
		return fmt.Errorf("fill the demo database: %w", err)
	}
	path, err := d.configure(dir, cluster)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "shardproxy.log"))
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
	if err := d.greet(ctx, cluster, log.Name(), begun); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(d.out)
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

// fill creates the order-processing schema and its rows.
func (d *demo) fill(ctx context.Context, c *pgcluster.Cluster) error {
	conn, err := pgx.Connect(ctx, c.Primary().DSN("app", "app"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, text := range []string{sql.Schema(), sql.Seed(), "ANALYZE"} {
		if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

// configure writes the proxy's files into the folder.
func (d *demo) configure(dir string, c *pgcluster.Cluster) (string, error) {
	var nodes []string
	for _, n := range c.Nodes() {
		nodes = append(nodes, fmt.Sprintf("%q", n.Addr()))
	}
	password := filepath.Join(dir, "app.password")
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
      - {name: s0, nodes: [%s]}
    server:
      control: {user: postgres}
`, d.listen, d.admin, password, strings.Join(nodes, ", "))
	path := filepath.Join(dir, "shardproxy.yaml")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// greet waits until a statement comes back and says how to go on.
func (d *demo) greet(ctx context.Context, c *pgcluster.Cluster, log string, begun time.Time) error {
	dsn := fmt.Sprintf("postgres://app:%s@%s/app", demoPassword, d.listen)
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var orders int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&orders); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(d.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, `
ready after %.1f s: %d orders behind the proxy

  DSN      %s
  psql     PGPASSWORD=%s psql -h %s -p %s -U app app
  query    SELECT status, count(*) FROM orders GROUP BY status ORDER BY status;
  console  PGPASSWORD=%s psql -h %s -p %s -U app shardproxy -c 'SHOW NODES'
  admin    http://%s/
  log      %s

`, time.Since(begun).Seconds(), orders, dsn, demoPassword, host, port, demoPassword, host, port, d.admin, log)
	d.nodes(c)
	fmt.Fprint(d.out, "\nCtrl-C ends everything.\n")
	return nil
}

// nodes says where the servers are and how to make one fail.
func (d *demo) nodes(c *pgcluster.Cluster) {
	for _, n := range c.Nodes() {
		fmt.Fprintf(d.out, "  %-8s %s, process %d, data in %s\n", n.Name(), n.Addr(), n.PID(), n.DataDir())
	}
	promote := fmt.Sprintf("%s promote -D %s", c.Binaries().Path("pg_ctl"), c.Replicas()[0].DataDir())
	if account := c.Account(); account != "" {
		promote = fmt.Sprintf("su -s /bin/sh %s -c '%s'", account, promote)
	}
	fmt.Fprintf(d.out, `
To see writes wait for a new primary:
  kill the primary   kill -9 %d
  promote a replica  %s
`, c.Primary().PID(), promote)
}
