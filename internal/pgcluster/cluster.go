package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
)

// Options says what cluster to make. The zero value is one server.
type Options struct {
	// Replicas is the number of streaming replicas beside the primary.
	Replicas int
	// Settings are lines of postgresql.conf for every node, unquoted values;
	// they win over the package's own.
	Settings map[string]string
	// HBA replaces the lines of pg_hba.conf for TCP connections. Empty: the
	// superuser without a password, everybody else with SCRAM.
	HBA string
	// TLS turns ssl on with a certificate for 127.0.0.1 and localhost from an
	// authority made for this cluster; see Cluster.TLS.
	TLS bool
	// MaxConnections per server; 0 means 100.
	MaxConnections int
	// Parent is the folder to make everything in; empty means /tmp. It must be
	// reachable by the account that servers run as, and its path short.
	Parent string
	// OwnParent says that Parent, made by OwnFolder, is this cluster's alone:
	// Close removes it with everything in it, and so does the watchdog. The
	// cluster then shares no template with others, and leaves none.
	OwnParent bool
	// Binaries to use; the zero value means FindBinaries.
	Binaries Binaries
}

// Cluster is one primary and its replicas. Make it with New, start it with
// Open, end it with Close.
type Cluster struct {
	options Options
	bin     Binaries
	account account
	base    string // holds the template and all clusters of this account
	dir     string // of this cluster; also holds the sockets
	tls     *TLS
	guard   *watchdog

	mu       sync.Mutex
	primary  *Node
	replicas []*Node
	closed   bool
}

// New returns a cluster that does not exist yet.
func New(o Options) *Cluster { return &Cluster{options: o} }

// Open makes the servers, starts them and returns when all accept connections
// and the replicas stream. After an error nothing is left. The first call for
// a PostgreSQL version on a machine takes some seconds more, for the template.
func (c *Cluster) Open(ctx context.Context) error {
	if err := c.open(ctx); err != nil {
		return errors.Join(fmt.Errorf("open cluster: %w", err), c.Close())
	}
	return nil
}

func (c *Cluster) open(ctx context.Context) error {
	template, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	c.primary, err = c.newNode("primary", nil)
	if err != nil {
		return err
	}
	if err := copyTemplate(template, c.primary.dataDir, c.account); err != nil {
		return err
	}
	if err := setSystemID(c.primary.dataDir, rand.Uint64()>>1|1); err != nil {
		return err
	}
	// A stopped copy is a base backup: replicas made from the very same files
	// stream from where they end.
	for i := range c.options.Replicas {
		replica, err := c.newNode(fmt.Sprintf("replica%d", i+1), c.primary)
		if err != nil {
			return err
		}
		c.replicas = append(c.replicas, replica)
		if err := copyTemplate(c.primary.dataDir, replica.dataDir, c.account); err != nil {
			return err
		}
	}
	if err := c.primary.Start(ctx); err != nil {
		return err
	}
	return c.startReplicas(ctx)
}

// prepare finds programs, account and folders and returns the template.
func (c *Cluster) prepare(ctx context.Context) (template string, err error) {
	if c.bin = c.options.Binaries; c.bin.Dir == "" {
		if c.bin, err = FindBinaries(); err != nil {
			return "", err
		}
	}
	if c.account, err = serverAccount(); err != nil {
		return "", err
	}
	if c.options.OwnParent {
		c.base = c.options.Parent
		// Before anything else is made in it.
		if c.guard, err = startWatchdog(c.account, c.base); err != nil {
			return "", err
		}
	} else if c.base, err = c.account.baseDir(c.options.Parent); err != nil {
		return "", err
	}
	if template, err = ensureTemplate(ctx, c.base, c.account, c.bin); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(c.base, "c")
	if err != nil {
		return "", err
	}
	c.dir = dir
	if err := c.account.own(dir); err != nil {
		return "", err
	}
	if c.guard == nil {
		if c.guard, err = startWatchdog(c.account, dir); err != nil {
			return "", err
		}
	}
	if c.options.TLS {
		if c.tls, err = newTLS(c.account, dir); err != nil {
			return "", err
		}
	}
	return template, nil
}

// startReplicas starts all replicas at once and waits until they stream.
func (c *Cluster) startReplicas(ctx context.Context) error {
	errs := make([]error, len(c.replicas))
	var wg sync.WaitGroup
	for i, replica := range c.replicas {
		wg.Go(func() {
			if errs[i] = replica.Start(ctx); errs[i] == nil {
				errs[i] = replica.waitStreaming(ctx)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// newNode reserves what a node needs and makes no files.
func (c *Cluster) newNode(name string, follows *Node) (*Node, error) {
	port, err := reservePort(c.base, c.account)
	if err != nil {
		return nil, err
	}
	return &Node{
		cluster: c, name: name, follows: follows, port: port,
		dataDir: filepath.Join(c.dir, name),
		logFile: filepath.Join(c.dir, name+".log"),
	}, nil
}

// AddReplica takes a base backup of a running node, starts a replica from it
// and returns it when it streams from that node.
func (c *Cluster) AddReplica(ctx context.Context, from *Node) (*Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("add replica: the cluster is closed")
	}
	replica, err := c.newNode(fmt.Sprintf("replica%d", len(c.replicas)+1), from)
	if err != nil {
		return nil, fmt.Errorf("add replica: %w", err)
	}
	c.replicas = append(c.replicas, replica) // Close cleans it up in any case
	if err := replica.Rebuild(ctx, from); err != nil {
		return nil, fmt.Errorf("add replica: %w", err)
	}
	return replica, nil
}

// Primary returns the node that was made as primary. A promotion does not
// change it: roles are what the servers say.
func (c *Cluster) Primary() *Node { return c.primary }

// Replicas returns the nodes that were made as replicas, in order of making.
func (c *Cluster) Replicas() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Node(nil), c.replicas...)
}

// Nodes returns the primary and then the replicas.
func (c *Cluster) Nodes() []*Node {
	if c.primary == nil {
		return nil
	}
	return append([]*Node{c.primary}, c.Replicas()...)
}

// Account returns the user that the servers run as when this process is root,
// else "": they run as who started them.
func (c *Cluster) Account() string {
	if !c.account.drop {
		return ""
	}
	return c.account.name
}

// Binaries returns the installation the servers run from.
func (c *Cluster) Binaries() Binaries { return c.bin }

// Dir returns the cluster's folder, which is also the folder of the Unix
// sockets. Close removes it.
func (c *Cluster) Dir() string { return c.dir }

// TLS returns the certificates, or nil when Options.TLS was not set.
func (c *Cluster) TLS() *TLS { return c.tls }

func (c *Cluster) maxConnections() int {
	if c.options.MaxConnections > 0 {
		return c.options.MaxConnections
	}
	return 100
}

// Close ends all servers at once, without waiting for clients, and removes
// the cluster's folder. It may be called again, and without Open.
func (c *Cluster) Close() error {
	nodes := c.Nodes()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	var errs []error
	for _, n := range nodes {
		errs = append(errs, n.discard())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	if c.options.OwnParent {
		errs = append(errs, os.RemoveAll(c.options.Parent))
	}
	if c.guard != nil {
		c.guard.dismiss()
	}
	return errors.Join(errs...)
}
