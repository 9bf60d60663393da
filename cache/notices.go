package cache

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Channel is the notification channel on which proxies tell each other what was written, as of NoticesOptions.
const Channel = "shardproxy_cache"

// NoticesOptions configure Notices.
type NoticesOptions struct {
	// Connect returns a connection to the primary on which the proxies of a database meet. Notices own it.
	Connect func(ctx context.Context) (*pgx.Conn, error)
	// Self tells this proxy's notices from those of others.
	Self string
	// Cache is opened while others are heard, and shut when they are not.
	Cache *Cache
	// Gather is for how long writes are gathered before others are told; Interval the time between two proofs that others are heard, each within as
	// long again. 50 ms and 1 s when 0.
	Gather, Interval time.Duration
	Logger           *slog.Logger // slog.Default when nil
}

// Notices tell other proxies what is written through this one, and a Cache what is written through others. A notice is sent soon after the write, not
// with it: others may answer from what they keep for that long.
type Notices struct {
	o      NoticesOptions
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	tables map[string]struct{} // to be told of
	all    bool
	stir   context.CancelFunc // ends the wait of the loop; nil while it does not wait
}

// Listen returns Notices that are at work until Close.
func Listen(o NoticesOptions) *Notices {
	if o.Gather == 0 {
		o.Gather = 50 * time.Millisecond
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &Notices{o: o, cancel: cancel, done: make(chan struct{}), tables: map[string]struct{}{}}
	go n.run(ctx)
	return n
}

// Close shuts the cache and returns when nothing is at work any more.
func (n *Notices) Close() {
	n.cancel()
	<-n.done
}

// Tell has others told that tables, or all, may have changed. It does not block.
func (n *Notices) Tell(tables []string, all bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := len(n.tables) == 0 && !n.all
	n.all = n.all || all
	for _, t := range tables {
		n.tables[t] = struct{}{}
	}
	if first && n.stir != nil {
		time.AfterFunc(n.o.Gather, n.stir)
		n.stir = nil
	}
}

func (n *Notices) run(ctx context.Context) {
	defer close(n.done)
	defer n.o.Cache.Shut()
	for failures := 0; ctx.Err() == nil; failures++ {
		heard, err := n.hold(ctx)
		n.o.Cache.Shut()
		if heard {
			failures = 0
		}
		if ctx.Err() == nil && failures == 0 {
			n.o.Logger.Warn("results are not kept: what other proxies write is not heard", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(n.o.Interval):
		}
	}
}

// hold listens on one connection until it breaks. It reports whether others were heard.
func (n *Notices) hold(ctx context.Context) (heard bool, err error) {
	conn, err := n.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), n.o.Interval)
		defer cancel()
		_ = conn.Close(ctx) // the connection is not used any more
	}()
	n.o.Cache.Open()
	n.o.Logger.Info("results are kept: what other proxies write is heard")
	for {
		if err := n.wait(ctx, conn); err != nil {
			return true, err
		}
		if err := n.tell(ctx, conn); err != nil {
			return true, err
		}
	}
}

func (n *Notices) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*n.o.Interval)
	defer cancel()
	conn, err := n.o.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var standby bool
	if _, err = conn.Exec(ctx, "LISTEN "+Channel); err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby)
	}
	if standby {
		err = errors.New("the server is no primary")
	}
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// wait hears others until there is something to tell, or it is time to see whether they could be heard.
func (n *Notices) wait(ctx context.Context, conn *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, n.o.Interval)
	defer cancel()
	n.mu.Lock()
	if n.stir = cancel; len(n.tables) > 0 || n.all {
		time.AfterFunc(n.o.Gather, cancel)
		n.stir = nil
	}
	n.mu.Unlock()
	for {
		notice, err := conn.WaitForNotification(waiting)
		switch {
		case err == nil:
			n.hear(notice.Payload)
		case ctx.Err() == nil && waiting.Err() != nil && !conn.IsClosed():
			return nil
		default:
			return err
		}
	}
}

// tell sends what there is to tell, and proves with it that the connection is one.
func (n *Notices) tell(ctx context.Context, conn *pgx.Conn) error {
	n.mu.Lock()
	tables, all := n.tables, n.all
	n.tables, n.all = map[string]struct{}{}, false
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, n.o.Interval)
	defer cancel()
	var err error
	if payload := n.payload(tables, all); payload != "" {
		_, err = conn.Exec(ctx, "SELECT pg_notify($1, $2)", pgx.QueryExecModeExec, Channel, payload)
	} else {
		_, err = conn.Exec(ctx, "")
	}
	if err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.all = n.all || all || len(tables) > 0 // what exactly is nothing to anybody who begins to hear anew
	}
	return err
}

// payloadMax bounds the bytes of a notice: PostgreSQL's own bound is 8,000.
const payloadMax = 7000

// payload is what is sent: who has written, and a * or the names of tables. It is "" when there is nothing to tell.
func (n *Notices) payload(tables map[string]struct{}, all bool) string {
	if len(tables) == 0 && !all {
		return ""
	}
	names := make([]string, 0, len(tables))
	for t := range tables {
		names = append(names, t)
	}
	list, err := json.Marshal(names)
	if all || err != nil || len(list) > payloadMax {
		return n.o.Self + " *"
	}
	return n.o.Self + " " + string(list)
}

// hear drops what others have changed. A notice that is not understood may be of anything.
func (n *Notices) hear(payload string) {
	from, what, _ := strings.Cut(payload, " ")
	if from == n.o.Self {
		return
	}
	var tables []string
	err := json.Unmarshal([]byte(what), &tables)
	n.o.Cache.Invalidate(tables, err != nil)
}
